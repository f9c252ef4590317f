//! `quiltd operator data`: a data directory that no process uses.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use quilt_storage::Home;

use crate::exit::Failure;
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
    Check {
        #[command(flatten)]
        place: Place,
    },
    /// Print revision and hash of the state; equal on all replicas at the same applied index.
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
        problems => anyhow::bail!(
            "{problems} problems in '{dir}'\nhint: remove this replica from the control plane and let it join again with \
             an empty directory; restore a backup only when no replica is whole",
            dir = data_dir.display()
        ),
    }
}

fn hash(Place { data_dir }: &Place) -> anyhow::Result<()> {
    let identity = Home::identity_of(data_dir)?
        .ok_or_else(|| Failure::NotFound(format!("'{}' holds no data of a replica", data_dir.display())))?;
    let home = Home::open(data_dir, identity)?;
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
