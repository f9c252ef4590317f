//! `quiltd operator recover`: the way out when a majority of the replicas is gone for good.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use quilt_proto::ReplicaId;
use quilt_raft::{EpochName, Findings};
use quilt_storage::Home;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::assemble::identity;
use crate::cli::client::Connection;
use crate::cli::confirm::Confirm;
use crate::cli::form::Output;
use crate::cli::operator::data;
use crate::cli::operator::snapshot::{self, Replica};
use crate::exit::{Failure, Hinted};
use crate::output;
use crate::tls::files;

/// Go on with what is left when a majority of the replicas is lost for good.
///
/// collect on every survivor, stopped; plan with what was collected; apply on the replica the plan names. That also
/// writes a backup, from which `quiltd operator snapshot restore` makes the other replicas. Start them; verify. Writes
/// that only lost replicas had are lost. Never needed while a majority can be brought back: bring it back instead.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd operator recover collect --data-dir /var/lib/quiltd > cp-1.json\n  quiltd operator recover plan cp-1.json cp-2.json > plan.json\n  quiltd operator recover apply plan.json --data-dir /var/lib/quiltd --id 1 --initial-cluster 1=10.0.0.1:7443\n  quiltd operator recover verify plan.json --ca ca.crt --token-file admin.key"
)]
pub(crate) struct Recover {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print what a stopped survivor has, as JSON. Changes nothing.
    #[command(after_help = "Examples:\n  quiltd operator recover collect > cp-1.json")]
    Collect {
        /// The survivor's data directory.
        #[arg(long, env = "QUILTD_DATA_DIR", default_value = "/var/lib/quiltd", value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// Choose the survivor to go on with and say what may be lost. Prints the plan as JSON; changes nothing.
    #[command(after_help = "Examples:\n  quiltd operator recover plan cp-1.json cp-2.json > plan.json")]
    Plan {
        /// What was collected, one file a survivor.
        #[arg(required = true)]
        findings: Vec<PathBuf>,
    },
    /// Make the chosen survivor the first replica of a new epoch. Refused while a majority answers; asks once. The data
    /// of before is moved aside; doing it again changes nothing.
    #[command(
        after_help = "Examples:\n  quiltd operator recover apply plan.json --id 1 --initial-cluster 1=10.0.0.1:7443\n  quiltd operator recover apply plan.json --yes -o jsonpath={.epoch} --id 1 \\\n    --initial-cluster 1=10.0.0.1:7443,2=10.0.0.2:7443,3=10.0.0.3:7443"
    )]
    Apply {
        /// The plan.
        plan: PathBuf,
        #[command(flatten)]
        replica: Replica,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        output: Output,
    },
    /// Ask the running control plane whether the plan is in force.
    #[command(
        after_help = "Examples:\n  quiltd operator recover verify plan.json\n  quiltd operator recover verify plan.json --ca ca.crt --token-file admin.key"
    )]
    Verify {
        /// The plan.
        plan: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
}

/// What `plan` decides.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    /// The control plane.
    cluster: String,
    /// The survivor to go on with.
    replica: u64,
    /// Epoch it must still be of.
    of_epoch: u64,
    /// End of its log: what the new epoch begins with.
    last_term: u64,
    last_index: u64,
    /// Voters as it knew them, with their peer addresses.
    voters: std::collections::BTreeMap<u64, String>,
    /// Voters nothing was collected from.
    missing: Vec<u64>,
    /// Entries at the end of the log that no survivor knew to be committed: kept, although they may never have been
    /// acknowledged.
    kept_uncommitted: u64,
}

impl Recover {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Collect { data_dir } => {
                output::line(&serde_json::to_string_pretty(&collect(&data_dir)?)?);
                Ok(())
            }
            Verb::Plan { findings } => {
                let found = findings.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<Findings>>>()?;
                let plan = plan(&found)?;
                explain(&plan);
                output::line(&serde_json::to_string_pretty(&plan)?);
                Ok(())
            }
            Verb::Apply { plan, replica, confirm, output } => {
                output.show(&apply(&read(&plan)?, &replica, confirm)?, tell)
            }
            Verb::Verify { plan, connection } => verify(&read(&plan)?, &connection),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(file: &std::path::Path) -> anyhow::Result<T> {
    let text = files::read(file)?;
    serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("'{}': {error}", file.display())).into())
}

fn open(data_dir: &std::path::Path) -> anyhow::Result<Home> {
    let home = Home::open(data_dir, data::identity(data_dir)?).context("the data directory cannot be used")?;
    home.require_state()?;
    Ok(home)
}

fn collect(data_dir: &std::path::Path) -> anyhow::Result<Findings> {
    Ok(quilt_raft::examine(&open(data_dir)?)?)
}

/// The survivor with the most complete log, by Raft's own rule: the last entry's term, then its index (Raft
/// dissertation, section 3.6.1).
fn plan(found: &[Findings]) -> anyhow::Result<Plan> {
    let best = found.iter().max_by_key(|one| (one.epoch, one.last_term, one.last_index));
    let best = best.context("nothing was collected")?;
    if let Some(other) = found.iter().find(|one| one.cluster != best.cluster) {
        return Err(Failure::Refused(format!(
            "replica {} belongs to control plane {}, replica {} to {}",
            best.replica, best.cluster, other.replica, other.cluster
        ))
        .into());
    }
    let current = || found.iter().filter(|one| one.epoch == best.epoch);
    let collected = |id: &u64| current().any(|one| one.replica == *id);
    let missing: Vec<u64> = best.voters.iter().copied().filter(|id| !collected(id)).collect();
    if missing.len() * 2 < best.voters.len() {
        return Err(Failure::Refused(format!(
            "a majority of the {} voters was collected: nothing is lost",
            best.voters.len()
        )))
        .hint("start these replicas; they elect a leader by themselves");
    }
    let committed = current().map(|one| one.committed_index).max().unwrap_or(0);
    let voters = best.members.iter().filter(|(id, _)| best.voters.contains(id));
    Ok(Plan {
        cluster: best.cluster.clone(),
        replica: best.replica,
        of_epoch: best.epoch,
        last_term: best.last_term,
        last_index: best.last_index,
        voters: voters.map(|(id, address)| (*id, address.clone())).collect(),
        missing,
        kept_uncommitted: best.last_index.saturating_sub(committed),
    })
}

fn explain(plan: &Plan) {
    let missing: Vec<String> = plan.missing.iter().map(u64::to_string).collect();
    output::note(&format!(
        "go on with replica {}: its log is the most complete one and ends at entry {} of term {}",
        plan.replica, plan.last_index, plan.last_term
    ));
    let replicas = if missing.len() == 1 { "replica" } else { "replicas" };
    output::note(&format!("given up: {replicas} {}, and every write that only they had", missing.join(", ")));
    output::note(&match plan.kept_uncommitted {
        0 => "every entry of that log is known to be committed".to_owned(),
        1 => "kept although nobody knew it to be committed: the last entry of that log".to_owned(),
        count => format!("kept although nobody knew them to be committed: the last {count} entries of that log"),
    });
}

fn apply(plan: &Plan, replica: &Replica, confirm: Confirm) -> anyhow::Result<Value> {
    if replica.id != plan.replica {
        return Err(Failure::Refused(format!("the plan goes on with replica {}, not {}", plan.replica, replica.id)))
            .hint("run it on that replica's host");
    }
    let dir = &replica.data_dir;
    let home = open(dir)?;
    let found = quilt_raft::examine(&home)?;
    let backup = dir.join(format!("recover-{}-{}.quilt", plan.of_epoch, plan.last_index));
    if found.epoch > plan.of_epoch && backup.exists() {
        let epoch = EpochName::of(found.epoch, &quilt_storage::inspect_backup(&backup)?);
        return Ok(serde_json::json!({
            "data_dir": dir, "replica": replica.id, "epoch": epoch.to_string(), "revision": found.revision,
            "backup": backup, "applied_before": true,
        }));
    }
    let same = found.cluster == plan.cluster
        && (found.epoch, found.last_term, found.last_index) == (plan.of_epoch, plan.last_term, plan.last_index);
    if !same || found.replica != plan.replica {
        return Err(Failure::Refused(format!("'{}' is not what the plan was made of", dir.display())))
            .hint("stop the replica, collect anew and make a new plan");
    }
    refuse_a_living_quorum(plan, dir)?;
    explain(plan);
    confirm.ask(&format!("go on with replica {} in a new epoch, without the others' writes?", plan.replica))?;
    let applied = quilt_raft::replay(&home)?;
    let snapshot = home.snapshots.newest().context("the state is empty: there is nothing to go on with")?;
    write(&backup, snapshot)?;
    drop(home);
    output::note(&format!("applied the last {applied} entries of the log"));
    let manifest = quilt_storage::inspect_backup(&backup)?;
    snapshot::begin(&backup, replica, EpochName::of(snapshot::wall_us(), &manifest))
}

fn tell(done: &Value) {
    let text = |name: &str| done[name].as_str().map_or_else(|| done[name].to_string(), str::to_owned);
    if done["applied_before"].as_bool() == Some(true) {
        output::line(&format!("the plan has been applied: '{}' is of epoch {}", text("data_dir"), text("epoch")));
    } else {
        snapshot::tell(done);
    }
    output::line(&format!(
        "start this replica; others are made with quiltd operator snapshot restore from '{}' with --epoch {}",
        text("backup"),
        text("epoch")
    ));
}

/// While a majority answers, nothing is lost, and a second control plane would be made.
fn refuse_a_living_quorum(plan: &Plan, dir: &std::path::Path) -> anyhow::Result<()> {
    let place = identity::read(dir)?;
    let asking = quilt_raft::Asking {
        id: ReplicaId(plan.replica),
        cluster: &plan.cluster,
        epoch: plan.of_epoch,
        identity: place.peer_identity()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answering = runtime.block_on(quilt_raft::answering(asking, &plan.voters))?;
    let alive = plan.voters.keys().filter(|id| answering.contains(id)).count();
    if alive * 2 > plan.voters.len() {
        return Err(Failure::Refused(format!(
            "{alive} of {} voters answer: the quorum is not lost",
            plan.voters.len()
        )))
        .hint("start this replica as usual, or remove it with quiltd operator raft remove");
    }
    Ok(())
}

fn write(backup: &std::path::Path, snapshot: std::sync::Arc<quilt_storage::Snapshot>) -> anyhow::Result<()> {
    let (_, pieces) = quilt_storage::backup(snapshot);
    files::write_pieces(backup, pieces.map(|piece| piece.map_err(anyhow::Error::from)))
}

fn verify(plan: &Plan, connection: &Connection) -> anyhow::Result<()> {
    let status = connection.ask(&reqwest::Method::GET, "/api/admin/status", None)?;
    let epoch = status["epoch"].as_u64().unwrap_or(0);
    if epoch <= plan.of_epoch {
        return Err(Failure::Refused(format!("the control plane is of epoch {epoch}: the plan has not been applied")))
            .hint("run quiltd operator recover apply on the replica the plan names, and start it");
    }
    if status["leader"].is_null() {
        return Err(Failure::Unavailable(format!("epoch {epoch} has begun, and no replica leads yet")).into());
    }
    let text = |name: &str| status[name].to_string();
    output::line(&format!(
        "epoch {epoch} is in force: replica {} leads, revision {}, failures tolerated: {}",
        text("leader"),
        text("revision"),
        text("failures_tolerated")
    ));
    output::line("replicas of the old epoch are refused until their directories are made anew from the backup");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivor(replica: u64, last: (u64, u64), committed_index: u64) -> Findings {
        Findings {
            replica,
            cluster: "cp".into(),
            epoch: 0,
            term: last.0,
            last_term: last.0,
            last_index: last.1,
            committed_index,
            applied_index: 0,
            revision: 0,
            members: (1..=5).map(|id| (id, format!("cp-{id}:7443"))).collect(),
            voters: (1..=5).collect(),
        }
    }

    /// The longer log of an older term is not the more complete one, and a majority has nothing to recover from.
    #[test]
    fn the_most_complete_log_is_chosen() {
        let chosen = plan(&[survivor(4, (3, 90), 80), survivor(2, (4, 70), 60)]).expect("a plan");
        assert_eq!((chosen.replica, chosen.missing.as_slice()), (2, &[1, 3, 5][..]));
        assert_eq!(chosen.kept_uncommitted, 0, "another survivor knew that all of it is committed");
        let majority = [survivor(1, (1, 1), 1), survivor(2, (1, 1), 1), survivor(3, (1, 1), 1)];
        assert!(plan(&majority).is_err());
    }
}
