//! `quiltd operator`: what the person who runs the control plane does with it, on line and off.

mod data;
mod raft;
mod recover;
mod snapshot;

use clap::Subcommand;

/// Back up, restore, check and recover the control plane itself.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd operator snapshot save backup.quilt --ca ca.crt --token-file admin.key\n  quiltd operator recover collect > cp-1.json\n  quiltd operator data check"
)]
pub(crate) struct Operator {
    #[command(subcommand)]
    area: Area,
}

#[derive(Debug, Subcommand)]
enum Area {
    Raft(raft::Raft),
    Snapshot(snapshot::Snapshot),
    Recover(recover::Recover),
    Data(data::Data),
}

impl Operator {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.area {
            Area::Raft(command) => command.run(),
            Area::Snapshot(command) => command.run(),
            Area::Recover(command) => command.run(),
            Area::Data(command) => command.run(),
        }
    }
}
