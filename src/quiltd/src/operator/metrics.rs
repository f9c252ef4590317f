//! `GET /api/admin/metrics`: the numbers of this replica that a monitoring system keeps, in the text format of Prometheus.
//! They are those of the status document; nothing is counted here.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use quilt_raft::{Consistency, Repaired, Role, Status};

use super::refusal::Refusal;
use super::{LOCAL_READ, Operator};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answered from local state, as the status is.
pub(super) async fn metrics(
    State(operator): State<Operator>,
    headers: HeaderMap,
) -> Result<([(HeaderName, &'static str); 1], String), Refusal> {
    operator.admin(&headers, Consistency::Stale, LOCAL_READ).await?;
    let replica = &operator.api.replica;
    Ok(([(header::CONTENT_TYPE, TEXT)], render(&replica.status(), replica.wall_ms())))
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: Kind, help: &str, value: u64) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }
}

fn render(status: &Status, now_ms: u64) -> String {
    use Kind::{Counter, Gauge};

    let mut page = Page(String::new());
    page.one("quiltd_raft_leader", Gauge, "Whether this replica leads.", u64::from(status.role == Role::Leader));
    page.one("quiltd_raft_term", Gauge, "Current term.", status.term);
    page.one("quiltd_raft_applied_index", Gauge, "Last log entry applied.", status.applied_index);
    page.one("quiltd_log_bytes", Gauge, "Bytes of the log.", status.log_bytes);
    page.one("quiltd_log_syncs_total", Counter, "Syncs of the log since it was opened.", status.load.log_syncs);
    page.one("quiltd_revision", Gauge, "Newest revision applied.", status.revision);
    let help = "Oldest revision at which every cluster can be read, and from which it can be watched.";
    page.one("quiltd_history_floor_revision", Gauge, help, status.history.floor);
    page.one("quiltd_alarms", Gauge, "What an operator should know at once.", status.alarms.len() as u64);
    page.one(
        "quiltd_scan_bytes_total",
        Counter,
        "Bytes of the state and the log read to find rot, since the replica was opened.",
        status.scanned_bytes,
    );
    if let Some(scanned) = &status.scanned {
        let age_ms = now_ms.saturating_sub(scanned.finished_ms);
        page.one("quiltd_scan_last_pass_age_seconds", Gauge, "Time since all was last read.", age_ms / 1_000);
        page.one("quiltd_scan_last_pass_seconds", Gauge, "How long that took.", scanned.took_ms / 1_000);
        page.one("quiltd_scan_last_pass_rows", Gauge, "Rows whose hash was taken.", scanned.rows);
        page.one("quiltd_scan_last_pass_log_entries", Gauge, "Log entries read.", scanned.log_entries);
    }
    let damaged = status.error.as_ref().is_some_and(|error| error.contains("damaged"));
    page.one("quiltd_damage_found", Gauge, "Whether the replica has stopped over damaged data.", u64::from(damaged));
    let name = "quiltd_repairs_at_start";
    page.head(name, Gauge, "What was made anew, or whole again, when the replica was last opened.");
    for (what, repaired) in [("state", Repaired::State), ("log", Repaired::Log)] {
        let value = u8::from(status.repaired.contains(&repaired));
        let _ = writeln!(page.0, "{name}{{what=\"{what}\"}} {value}");
    }
    page.0
}

#[cfg(test)]
mod tests {
    use quilt_proto::ReplicaId;
    use quilt_raft::Replica;

    use super::*;

    /// Every number has its help and its kind, once, and scans and repairs are among them.
    #[tokio::test]
    async fn metrics_are_whole() {
        let replica = Replica::memory(ReplicaId(1)).await;
        let mut status = replica.status();
        status.scanned_bytes = 7;
        status.revision = 40;
        status.history.floor = 12;
        status.alarms = vec!["the clock of replica 1 is 12 s behind cluster time".into()];
        status.repaired = vec![Repaired::Log];
        let text = render(&status, replica.wall_ms());
        let lines = [
            "quiltd_scan_bytes_total 7",
            "quiltd_repairs_at_start{what=\"log\"} 1",
            "quiltd_damage_found 0",
            "quiltd_revision 40",
            "quiltd_history_floor_revision 12",
            "quiltd_alarms 1",
        ];
        for line in lines {
            assert!(text.lines().any(|it| it == line), "{line} is missing:\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split([' ', '{']).next().expect("a name");
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{line}");
        }
        replica.shutdown().await;
    }
}
