//! [`Case`]: what can be measured, and which rows of the result come of it.

use super::client::Freshness;
use super::load::{Told, Work};
use super::pairs::Pair;

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is measured.
    pub what: What,
    /// Clients at once; where the leader is lost, the writers at servers that stay.
    pub clients: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A load, slice by slice.
    Load(Work),
    /// Syncs of the disk under a load of puts.
    Syncs,
    /// Writes while the leader is lost.
    Gap(LeaderLoss),
    /// Memory and elections over a million and a half writes.
    Soak,
    /// The start of a server that holds a gigabyte.
    ColdStart,
    /// Watches on which nothing happens.
    IdleWatch,
    /// Servers that nobody asks anything.
    Idle,
}

/// How a leader ceases to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderLoss {
    /// `kill -9`.
    Kill,
    /// `SIGSTOP`: its connections stay open and silent.
    Pause,
    /// It hands over, as an operator asks it to.
    Transfer,
}

impl LeaderLoss {
    /// The row's name, and that of the longest gap.
    #[must_use]
    pub const fn rows(self) -> [&'static str; 2] {
        match self {
            Self::Kill => ["leader-kill", "leader-kill-max"],
            Self::Pause => ["leader-pause", "leader-pause-max"],
            Self::Transfer => ["leader-transfer", "leader-transfer-max"],
        }
    }
}

const fn case(what: What, clients: usize, value_bytes: usize) -> Case {
    Case { what, clients, value_bytes }
}

const fn load(work: Work, clients: usize, value_bytes: usize) -> Case {
    case(What::Load(work), clients, value_bytes)
}

const SMALL: usize = 256;
const LARGE: usize = 1_024;

/// All of them, in the order in which they are run.
pub const ALL: [Case; 21] = [
    // Before anything has been let go of that they could take.
    case(What::Idle, 0, 0),
    case(What::IdleWatch, 10_000, SMALL),
    load(Work::Put, 256, SMALL),
    load(Work::Put, 256, LARGE),
    load(Work::Put, 1, SMALL),
    load(Work::Put, 64, SMALL),
    load(Work::Put, 1_000, SMALL),
    load(Work::Put, 1_000, LARGE),
    case(What::Syncs, 256, SMALL),
    case(What::Syncs, 256, LARGE),
    load(Work::Get(Freshness::Linear), 1, SMALL),
    load(Work::Get(Freshness::Linear), 64, SMALL),
    load(Work::Get(Freshness::Linear), 256, SMALL),
    load(Work::Get(Freshness::Linear), 1_000, SMALL),
    load(Work::Get(Freshness::Stale), 256, SMALL),
    load(Work::Fanout, 1_000, SMALL),
    case(What::Gap(LeaderLoss::Kill), 2, SMALL),
    case(What::Gap(LeaderLoss::Pause), 2, SMALL),
    case(What::Gap(LeaderLoss::Transfer), 3, SMALL),
    case(What::Soak, 256, LARGE),
    case(What::ColdStart, 256, LARGE),
];

/// One quantity of a case.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// What its row is called, before clients and value size.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// How it is read off a slice; `None` when the slice does not say.
    pub of: fn(&Told, &Case) -> Option<f64>,
}

const SERVERS: f64 = 3.0;

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn ratio(above: u64, below: u64) -> Option<f64> {
    (below > 0).then(|| above as f64 / below as f64)
}

fn per_second(told: &Told, _: &Case) -> Option<f64> {
    ratio(told.done.saturating_mul(1_000_000), told.elapsed_us)
}

fn cpu_us(told: &Told, _: &Case) -> Option<f64> {
    ratio(told.servers.cpu_us, told.done)
}

fn client_cpu_us(told: &Told, _: &Case) -> Option<f64> {
    ratio(told.client_cpu_us, told.done)
}

fn amplification(told: &Told, case: &Case) -> Option<f64> {
    let payload = told.done.saturating_mul(case.value_bytes as u64);
    let ratio = ratio(told.servers.written_bytes, payload)? / SERVERS;
    (told.servers.written_bytes > 0).then_some(ratio)
}

fn permille(told: &Told, permille: u64) -> Option<f64> {
    Some(told.latency.permille(permille)?.as_secs_f64() * 1_000.0)
}

fn p50(told: &Told, _: &Case) -> Option<f64> {
    permille(told, 500)
}

fn p99(told: &Told, _: &Case) -> Option<f64> {
    permille(told, 990)
}

fn p999(told: &Told, _: &Case) -> Option<f64> {
    permille(told, 999)
}

macro_rules! quantities {
    ($($name:literal $unit:literal $of:ident),* $(,)?) => {
        &[$(Quantity { name: $name, unit: $unit, of: $of }),*]
    };
}

impl Case {
    /// The quantities read off each of its slices.
    #[must_use]
    pub const fn quantities(&self) -> &'static [Quantity] {
        match self.what {
            What::Load(Work::Put | Work::Fill) => quantities![
                "put" "1/s" per_second, "put-p50" "ms" p50, "put-p99" "ms" p99, "put-p999" "ms" p999,
                "cpu-us-per-put" "us" cpu_us, "bytes-written-per-payload-byte" "bytes" amplification,
                "client-cpu-us-per-put" "us" client_cpu_us,
            ],
            What::Load(Work::Get(Freshness::Linear)) => quantities![
                "get-linear" "1/s" per_second, "get-linear-p50" "ms" p50, "get-linear-p99" "ms" p99,
                "get-linear-p999" "ms" p999, "cpu-us-per-get-linear" "us" cpu_us,
            ],
            What::Load(Work::Get(Freshness::Stale)) => quantities![
                "get-stale" "1/s" per_second, "get-stale-p50" "ms" p50, "get-stale-p99" "ms" p99,
                "get-stale-p999" "ms" p999, "cpu-us-per-get-stale" "us" cpu_us,
            ],
            What::Load(Work::Fanout) => quantities![
                "watch-fanout" "1/s" per_second, "watch-fanout-p50" "ms" p50, "watch-fanout-p99" "ms" p99,
                "cpu-us-per-delivery" "us" cpu_us,
            ],
            What::Syncs | What::Gap(_) | What::Soak | What::ColdStart | What::IdleWatch | What::Idle => &[],
        }
    }

    /// Clients and value size, as they end a row's name.
    #[must_use]
    pub fn size(&self) -> String {
        let value = match self.value_bytes {
            kib if kib > 0 && kib % 1_024 == 0 => format!("{}KiB", kib / 1_024),
            bytes => format!("{bytes}B"),
        };
        format!("{}c/{value}", self.clients)
    }

    /// The names of all its rows, the leading one first.
    #[must_use]
    pub fn rows(&self) -> Vec<String> {
        let names: Vec<&str> = match self.what {
            What::Load(_) => self.quantities().iter().map(|quantity| quantity.name).collect(),
            What::Syncs => vec!["fsyncs-per-commit"],
            What::Gap(loss) => loss.rows().to_vec(),
            What::Soak => vec!["rss-after-1M-puts", "rss-after-1.5M-puts", "elections"],
            What::ColdStart => vec!["cold-start-1GB"],
            What::IdleWatch => vec!["kib-per-idle-watch"],
            What::Idle => vec!["idle-cpu", "idle-rss"],
        };
        names.into_iter().map(|name| format!("{name}/{}", self.size())).collect()
    }

    /// Whether it takes so long that only a full run has it, unless it is asked for by name.
    #[must_use]
    pub const fn takes_long(&self) -> bool {
        matches!(self.what, What::Soak | What::ColdStart)
    }

    /// Whether any of its rows is asked for: `pattern` is a part of a name, `*` in it stands for anything.
    #[must_use]
    pub fn wanted(&self, pattern: &str) -> bool {
        self.rows().iter().any(|row| matches(pattern, row))
    }
}

fn matches(pattern: &str, row: &str) -> bool {
    let mut rest = row;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// One quantity of two neighbouring slices.
#[must_use]
pub fn pair(quantity: &Quantity, case: &Case, ours: &Told, peer: Option<&Told>) -> Option<Pair> {
    let ours = (quantity.of)(ours, case)?;
    Some(Pair { ours, peer: peer.and_then(|peer| (quantity.of)(peer, case)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows are called as their readers expect, each once, and are found by a part of their name.
    #[test]
    fn rows_have_names() {
        let mut rows: Vec<String> = ALL.iter().flat_map(Case::rows).collect();
        let count = rows.len();
        for name in [
            "put/256c/256B",
            "put/256c/1KiB",
            "get-linear/1000c/256B",
            "get-stale/256c/256B",
            "watch-fanout/1000c/256B",
            "leader-kill/2c/256B",
            "idle-cpu/0c/0B",
            "leader-pause-max/2c/256B",
            "leader-transfer/3c/256B",
            "rss-after-1M-puts/256c/1KiB",
            "cold-start-1GB/256c/1KiB",
            "fsyncs-per-commit/256c/1KiB",
            "cpu-us-per-put/256c/256B",
        ] {
            assert!(rows.iter().any(|row| row == name), "{name}");
        }
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), count);
        let found = |pattern: &str| ALL.iter().filter(|case| case.wanted(pattern)).count();
        assert_eq!(found("put/256c/256B"), 1);
        assert_eq!(found("p50/1c/"), 2);
        assert_eq!(found("get-*/256c"), 2);
        assert_eq!(found("nothing"), 0);
    }

    /// What a slice says is divided by what was done in it.
    #[test]
    fn quantities_are_per_operation() {
        let case = load(Work::Put, 256, 1_024);
        let mut told = Told { done: 1_000, elapsed_us: 500_000, ..Told::default() };
        told.servers.cpu_us = 50_000;
        told.servers.written_bytes = 3 * 5 * 1_024 * 1_000;
        let value = |name: &str| {
            let quantity = case.quantities().iter().find(|quantity| quantity.name == name).expect("named");
            (quantity.of)(&told, &case)
        };
        assert_eq!(value("put"), Some(2_000.0));
        assert_eq!(value("cpu-us-per-put"), Some(50.0));
        assert_eq!(value("bytes-written-per-payload-byte"), Some(5.0));
        assert_eq!(value("put-p50"), None);
    }
}
