//! `quiltd operator data`: a data directory that no process uses.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use quilt_storage::{Home, Identity, Remedy};

use crate::exit::{Failure, hinted};
use crate::output;

/// Look into the data directory of a stopped replica.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd operator data check --data-dir /var/lib/quiltd\n  quiltd operator data hash --data-dir /var/lib/quiltd"
)]
pub(crate) struct Data {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read everything and compare it with its checksums. Changes nothing; exit code 1 when something does not fit.
    #[command(
        after_help = "Examples:\n  quiltd operator data check\n  quiltd operator data check --data-dir /mnt/cp-1"
    )]
    Check {
        #[command(flatten)]
        place: Place,
    },
    /// Print revision and hash of the state; equal on all replicas at the same applied index.
    #[command(after_help = "Examples:\n  quiltd operator data hash\n  quiltd operator data hash --data-dir /mnt/cp-1")]
    Hash {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The replica's data directory.
    #[arg(long, env = "QUILTD_DATA_DIR", default_value = "/var/lib/quiltd", value_name = "DIR")]
    data_dir: PathBuf,
}

impl Data {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Check { place } => check(&place),
            Verb::Hash { place } => hash(&place),
        }
    }
}

fn check(Place { data_dir }: &Place) -> anyhow::Result<()> {
    identity(data_dir)?;
    let report = quilt_storage::check(data_dir).context("the data directory cannot be checked")?;
    output::line(&format!(
        "read {} log entries and {} state rows; applied up to log entry {}",
        report.log_entries, report.state_rows, report.applied_index
    ));
    for problem in &report.problems {
        output::line(problem);
    }
    match report.problems.len() {
        0 => {
            output::line("everything fits");
            Ok(())
        }
        problems => {
            let count = if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") };
            Err(hinted(anyhow::anyhow!("{count} in '{}'", data_dir.display()), advice(report.remedy)))
        }
    }
}

/// What to do about damage (docs/operate/recovery.md).
const fn advice(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Start => {
            "start the replica: it sets what is damaged aside and makes it good, from what is whole here or from a peer; \
             one without peers or a whole snapshot of its own is restored from a backup"
        }
        Remedy::Replace => {
            "it cannot come back under its number: with a majority of the others running nothing is lost; remove it with \
             quiltd operator raft remove, and let an empty directory join under a new number"
        }
    }
}

/// Whose data it is.
pub(super) fn identity(data_dir: &Path) -> anyhow::Result<Identity> {
    let identity = Home::identity_of(data_dir)?;
    Ok(identity.ok_or_else(|| Failure::NotFound(format!("'{}' holds no data of a replica", data_dir.display())))?)
}

fn hash(Place { data_dir }: &Place) -> anyhow::Result<()> {
    let home = Home::open(data_dir, identity(data_dir)?)?;
    home.require_state()?;
    let machine = quilt_state::Machine::open(std::sync::Arc::new(home.state.clone()))?;
    let position = machine.position().unwrap_or_default();
    output::table(
        &["REPLICA", "EPOCH", "APPLIED INDEX", "REVISION", "KEYS", "HASH"],
        &[vec![
            home.identity().replica.to_string(),
            home.epoch().to_string(),
            position.index.to_string(),
            machine.horizon().revision.to_string(),
            machine.live_keys().to_string(),
            machine.hash().to_string(),
        ]],
    );
    Ok(())
}
