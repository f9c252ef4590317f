//! The rules by which a command of a page is run where a test can run it. There are few, and none leaves a command out:
//! what no rule knows is run as it is written.
//!
//! | on the page | in the test |
//! |---|---|
//! | `./scripts/dev ARGS` | the script, with a cargo that compiles nothing; `quiltd dev ARGS` when the tests were built elsewhere than it builds |
//! | either, and `quiltd dev`, without ports | on free ports; addresses `127.0.0.1:6443`, `:6444`, … become theirs |
//! | `./scripts/chaos ARGS` | the built `chaos ARGS` |
//! | `./scripts/test` | nothing more: it is what runs the test |
//! | `cargo xtask ARGS` | the built `xtask ARGS --help`: the words are parsed, the chore itself needs the clone |
//! | `/tmp/quilt`, `/var/lib/`, `/etc/quilt`, `/etc/systemd/` | below the test's own directory |
//! | hosts `10.0.0.N` | `127.x.y.N`, with an x.y of the test's own |
//! | `ssh`, `scp`, and `systemctl`, `journalctl` on a host | the programs in `cluster-tests/stand-ins`: a host is a directory |
//! | a command that runs until it is stopped | in a terminal of its own |

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use crate::pages::Block;

/// First ports of `quiltd dev`, as pages spell them.
const API_PORT: u16 = 6443;
const HTTP_PORT: u16 = 8080;

/// Commands that run until they are stopped.
const STAY: &[&str] = &["./scripts/dev", "quiltd dev", "quiltd server", "quiltd agent"];

/// What runs all tests, this one included.
const GATE: &str = "./scripts/test";

/// Where things of the pages are in one run.
#[derive(Debug, Clone)]
pub struct Places {
    /// Stands for `/`, as far as pages write there.
    pub root: PathBuf,
    /// The binary under test.
    pub quiltd: PathBuf,
    /// The chores' program, built beside it.
    pub xtask: PathBuf,
    /// The program that breaks things, built beside it.
    pub chaos: PathBuf,
    /// The clone, if its scripts find there what was built for this run.
    pub clone: Option<PathBuf>,
    /// First three bytes of the hosts' addresses.
    pub network: String,
    /// Ports of the replicas of `quiltd dev`, API and plain HTTP, once it runs.
    pub ports: Vec<(u16, u16)>,
}

/// What is done with one block.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Typed into the page's shell.
    Typed(String),
    /// Typed into a terminal of its own.
    Terminal(Terminal),
    /// The gate itself.
    Gate,
}

/// A command that runs until it is stopped.
#[derive(Debug, PartialEq, Eq)]
pub struct Terminal {
    /// The command.
    pub command: String,
    /// Where it is typed, if not where the other commands are.
    pub at: Option<PathBuf>,
    /// What a reader waits for before typing on elsewhere.
    pub awaits: Awaits,
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// Nothing: the next commands on the page do the waiting.
    Nothing,
    /// The line `ready`, which `quiltd dev` prints.
    Ready,
}

/// What becomes of a block.
///
/// # Errors
/// When a command that runs until it is stopped does not stand alone.
pub fn step(block: &Block, places: &Places) -> Result<Step> {
    let lines = logical_lines(&block.text);
    if let [line] = lines.as_slice() {
        if begins(line, GATE) {
            return Ok(Step::Gate);
        }
        if stays(line) {
            return Ok(Step::Terminal(terminal(line, places)?));
        }
    }
    if let Some(line) = lines.iter().find(|line| stays(line) || begins(line, GATE)) {
        bail!("`{line}` runs until it is stopped or takes minutes: a block of its own");
    }
    let mut text = String::new();
    for line in block.text.lines() {
        let typed = match line.strip_prefix("cargo xtask") {
            Some(rest) => format!("'{}'{rest} --help", places.xtask.display()),
            None => match line.strip_prefix("./scripts/chaos") {
                Some(rest) => format!(
                    "QUILTD_BIN='{}' QUILTD_FAULT_SHIM='{}' '{}'{}",
                    places.quiltd.display(),
                    places.chaos.with_file_name("libquilt_fault_shim.so").display(),
                    places.chaos.display(),
                    places.substitute(rest).replace(" --yes", "")
                ),
                None => places.substitute(line),
            },
        };
        if line.ends_with('\\') && begins(line, "cargo xtask") {
            bail!("`{line}` goes on in the next line, which this rule does not know");
        }
        writeln!(text, "{typed}")?;
    }
    Ok(Step::Typed(text))
}

fn stays(line: &str) -> bool {
    STAY.iter().any(|stay| begins(line, stay))
}

fn begins(line: &str, command: &str) -> bool {
    line.strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn terminal(line: &str, places: &Places) -> Result<Terminal> {
    ensure!(!line.contains([';', '|', '&']), "`{line}` is more than one command");
    let dev = begins(line, "./scripts/dev") || begins(line, "quiltd dev");
    let (mut command, at) = match (line.strip_prefix("./scripts/dev"), &places.clone) {
        (Some(_), Some(clone)) => (places.substitute(line), Some(clone.clone())),
        (Some(arguments), None) => {
            let arguments = places.substitute(arguments).replace(" --yes", "");
            (format!("'{}' dev{arguments}", places.quiltd.display()), None)
        }
        (None, _) => (places.substitute(line), None),
    };
    if dev && !line.contains("-port") {
        command.push_str(" --api-port 0 --http-port 0 --peer-port 0");
    }
    Ok(Terminal { command, at, awaits: if dev { Awaits::Ready } else { Awaits::Nothing } })
}

/// Lines that are commands, each with its continuations.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut unfinished = String::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(start) = line.strip_suffix('\\') {
            unfinished.push_str(start.trim_end());
            unfinished.push(' ');
            continue;
        }
        let whole = std::mem::take(&mut unfinished) + line;
        if !whole.is_empty() && !whole.starts_with('#') {
            lines.push(whole);
        }
    }
    lines
}

impl Places {
    /// The same text with the places of this run.
    #[must_use]
    pub fn substitute(&self, text: &str) -> String {
        let root = self.root.display();
        let mut text = text
            .replace("/tmp/quilt", &format!("{root}/tmp/quilt"))
            .replace("/var/lib/", &format!("{root}/var/lib/"))
            .replace("/etc/quilt", &format!("{root}/etc/quilt"))
            .replace("/etc/systemd/", &format!("{root}/etc/systemd/"))
            .replace("10.0.0.", &format!("{}.", self.network));
        for (at, (api, http)) in (0_u16..).zip(&self.ports) {
            // A comma stands between, so that a port that was put in is not taken for one to replace.
            text = text.replace(&format!("127.0.0.1:{}", API_PORT + at), &format!("127.0.0.1:,{api}"));
            text = text.replace(&format!("127.0.0.1:{}", HTTP_PORT + at), &format!("127.0.0.1:,{http}"));
        }
        text.replace("127.0.0.1:,", "127.0.0.1:")
    }

    /// A network of loopback that is not likely another's, from the number of a process.
    #[must_use]
    pub fn network_of(process: u32) -> String {
        let [.., x, y] = process.to_be_bytes();
        format!("127.{}.{}", x.max(1), y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            root: "/t".into(),
            quiltd: "/b/quiltd".into(),
            xtask: "/b/xtask".into(),
            chaos: "/b/chaos".into(),
            clone: None,
            network: "127.9.9".into(),
            ports: vec![(6444, 1), (50_000, 2)],
        }
    }

    fn to(text: &str) -> Step {
        step(&Block { line: 1, text: text.into() }, &places()).expect("a step")
    }

    /// A command that no rule knows is typed as it stands.
    #[test]
    fn unknown_commands_are_typed() {
        let text = "for i in 1 2; do\n  frobnicate \"$i\" \\\n    --all\ndone\n";
        assert_eq!(to(text), Step::Typed(text.into()));
    }

    /// Places, hosts and ports are the run's own, each replaced once.
    #[test]
    fn places_are_substituted() {
        let text = "a /tmp/quilt/ca.crt 10.0.0.3:6443 /var/lib/quiltd https://127.0.0.1:6443/x 127.0.0.1:6444 127.0.0.1:8080\n";
        let put = "a /t/tmp/quilt/ca.crt 127.9.9.3:6443 /t/var/lib/quiltd https://127.0.0.1:6444/x 127.0.0.1:50000 127.0.0.1:1\n";
        assert_eq!(to(text), Step::Typed(put.into()));
    }

    /// What runs until it is stopped gets a terminal, on free ports if it is `dev`; the script is what it runs.
    #[test]
    fn staying_commands_get_a_terminal() {
        let ports = " --api-port 0 --http-port 0 --peer-port 0";
        let dev = |start: &str| {
            Step::Terminal(Terminal { command: format!("{start}{ports}"), at: None, awaits: Awaits::Ready })
        };
        assert_eq!(to("./scripts/dev\n"), dev("'/b/quiltd' dev"));
        assert_eq!(to("./scripts/dev --yes --dir /tmp/quilt\n"), dev("'/b/quiltd' dev --dir /t/tmp/quilt"));
        assert_eq!(to("quiltd dev --replicas 1\n"), dev("quiltd dev --replicas 1"));
        let server = Terminal {
            command: "quiltd server --id 1 --listen 127.9.9.1:6443".into(),
            at: None,
            awaits: Awaits::Nothing,
        };
        assert_eq!(to("quiltd server --id 1 \\\n  --listen 10.0.0.1:6443\n"), Step::Terminal(server));
    }

    /// Where the scripts find what was built, they are what is run.
    #[test]
    fn scripts_are_run_in_the_clone() {
        let places = Places { clone: Some("/c".into()), ..places() };
        let block = Block { line: 1, text: "./scripts/dev --yes --dir /tmp/quilt --api-port 7000\n".into() };
        let command = "./scripts/dev --yes --dir /t/tmp/quilt --api-port 7000".into();
        let terminal = Terminal { command, at: Some("/c".into()), awaits: Awaits::Ready };
        assert_eq!(step(&block, &places).expect("a step"), Step::Terminal(terminal));
    }

    /// The gate is known by its name only, and a chore's words are given to the chore.
    #[test]
    fn scripts_and_chores_are_known() {
        assert_eq!(to("./scripts/test\n"), Step::Gate);
        assert_eq!(to("./scripts/tests\n"), Step::Typed("./scripts/tests\n".into()));
        let chaos = "QUILTD_BIN='/b/quiltd' QUILTD_FAULT_SHIM='/b/libquilt_fault_shim.so' '/b/chaos' --list\n";
        assert_eq!(to("./scripts/chaos --yes --list\n"), Step::Typed(chaos.into()));
        assert_eq!(to("cargo xtask gen kinds --check\n"), Step::Typed("'/b/xtask' gen kinds --check --help\n".into()));
    }

    /// A command that stays does not share its block: what follows would never be typed.
    #[test]
    fn staying_commands_stand_alone() {
        for wrong in ["quiltd dev\nkubectl get nodes\n", "quiltd server & echo\n", "./scripts/test\nls\n"] {
            assert!(step(&Block { line: 1, text: wrong.into() }, &places()).is_err(), "{wrong}");
        }
    }
}
