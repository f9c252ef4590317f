//! `quiltd operator raft`: who belongs to the control plane, who votes, who leads.

use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::{Connection, duration};
use crate::cli::confirm::agreed;
use crate::cli::form::Output;
use crate::cli::{peer_address, status};
use crate::exit::{Failure, hinted};
use crate::output;

/// List, add, promote, demote and remove replicas, and choose who leads.
///
/// A replica is added as a learner, which receives everything and does not vote, and promoted once it has caught up.
/// What would leave too few voters that answer is refused. Every verb may be repeated.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd operator raft list-peers --ca ca.crt --token-file admin.key\n  quiltd operator raft transfer-leadership 2 --ca ca.crt --token-file admin.key\n  quiltd operator raft remove 3 --dry-run --ca ca.crt --token-file admin.key\n\nA new replica is let in with quiltd token create and quiltd server --join."
)]
pub(crate) struct Raft {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show every replica: its role, how far it is, when the leader last heard from it.
    #[command(
        after_help = "Examples:\n  quiltd operator raft list-peers --ca ca.crt --token-file admin.key\n  quiltd operator raft list-peers -o json --ca ca.crt --token-file admin.key"
    )]
    ListPeers {
        #[command(flatten)]
        output: Output,
    },
    /// Add a replica as a learner. Its certificates are in place already, by hand; else use quiltd server --join.
    #[command(after_help = "Examples:\n  quiltd operator raft add 4 10.0.0.4:7443 --ca ca.crt --token-file admin.key")]
    Add {
        /// Its number, never used before.
        id: u64,
        /// Where its peers reach it.
        #[arg(value_parser = peer_address, value_name = "HOST:PORT")]
        address: String,
    },
    /// Make a learner a voter, once it has caught up. The opposite of demote.
    #[command(
        after_help = "Examples:\n  quiltd operator raft promote 4 --ca ca.crt --token-file admin.key\n  quiltd operator raft promote 4 --patience 10m --ca ca.crt --token-file admin.key"
    )]
    Promote {
        /// The replica's number.
        id: u64,
        /// How long to wait for it to catch up, such as 90s or 10m.
        #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
        patience: Duration,
    },
    /// Make a voter a learner. The opposite of promote.
    #[command(
        after_help = "Examples:\n  quiltd operator raft demote 3 --dry-run --ca ca.crt --token-file admin.key\n  quiltd operator raft demote 3 --yes --ca ca.crt --token-file admin.key"
    )]
    Demote {
        /// The replica's number.
        id: u64,
        #[command(flatten)]
        consent: Consent,
    },
    /// Remove a replica for good; its number is never used again.
    #[command(
        after_help = "Examples:\n  quiltd operator raft remove 3 --dry-run --ca ca.crt --token-file admin.key\n  quiltd operator raft remove 3 --yes --ca ca.crt --token-file admin.key"
    )]
    Remove {
        /// The replica's number.
        id: u64,
        #[command(flatten)]
        consent: Consent,
    },
    /// Hand leadership to a voter, without a pause that clients would see as more than a slow answer.
    #[command(
        after_help = "Examples:\n  quiltd operator raft transfer-leadership --ca ca.crt --token-file admin.key\n  quiltd operator raft transfer-leadership 2 --ca ca.crt --token-file admin.key"
    )]
    TransferLeadership {
        /// The voter to lead; the one that is most up to date when none is named.
        id: Option<u64>,
    },
}

/// Before something is done that lowers what may fail.
#[derive(Debug, clap::Args)]
struct Consent {
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
}

/// Time the leader itself may take for a change.
const CHANGE_TIME: Duration = Duration::from_secs(60);

impl Raft {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match &self.verb {
            Verb::ListPeers { output } => output.show(&self.status()?, status::peers),
            Verb::Add { id, address } => {
                let body = json!({ "id": id, "address": address });
                self.change(&Method::POST, "/api/admin/replicas", Some(&body))?;
                output::line(&format!("replica {id} at {address} is a learner; promote it when it has caught up"));
                Ok(())
            }
            Verb::Promote { id, patience } => {
                let connection = self.connection.patient(*patience);
                let body = json!({ "timeout_secs": patience.as_secs().max(1) });
                connection.ask(&Method::POST, &format!("/api/admin/replicas/{id}/promote"), Some(&body))?;
                output::line(&format!("replica {id} votes"));
                Ok(())
            }
            Verb::Demote { id, consent } => self.retire(*id, consent, "demote", || {
                self.change(&Method::POST, &format!("/api/admin/replicas/{id}/demote"), None)?;
                output::line(&format!("replica {id} is a learner"));
                Ok(())
            }),
            Verb::Remove { id, consent } => self.retire(*id, consent, "remove", || {
                self.change(&Method::DELETE, &format!("/api/admin/replicas/{id}"), None)?;
                output::line(&format!("replica {id} is removed; stop it, its data is of no use any more"));
                Ok(())
            }),
            Verb::TransferLeadership { id } => {
                let done = self.change(&Method::POST, "/api/admin/leader", Some(&json!({ "to": id })))?;
                output::line(&format!("replica {} leads", done["leader"]));
                Ok(())
            }
        }
    }

    fn status(&self) -> anyhow::Result<Value> {
        self.connection.ask(&Method::GET, "/api/admin/status?from=leader", None)
    }

    fn change(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.connection.patient(CHANGE_TIME).ask(method, path, body)
    }

    /// Says in numbers what will happen, and does it when that is wanted.
    fn retire(
        &self,
        id: u64,
        consent: &Consent,
        verb: &str,
        act: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let plan = plan(&self.status()?, id, verb);
        output::note(&plan);
        if consent.dry_run {
            return Ok(());
        }
        if !consent.yes {
            agreed("go ahead?", || {
                let error = Failure::Usage(format!("nobody can be asked whether to {verb} replica {id}"));
                hinted(error, "add --yes to go ahead, or --dry-run to see what would happen")
            })?;
        }
        act()
    }
}

/// What taking a vote away means.
fn plan(status: &Value, id: u64, verb: &str) -> String {
    let members = || status["members"].as_array().into_iter().flatten();
    let votes = |replica: &&Value| replica["voter"].as_bool() == Some(true);
    let voters = members().filter(votes).count();
    let tolerated = |voters: usize| voters.saturating_sub(1) / 2;
    match members().find(|replica| replica["id"] == id) {
        Some(replica) if votes(&replica) => {
            let left = voters.saturating_sub(1);
            let (before, after) = (tolerated(voters), tolerated(left));
            let leads = if status["leader"] == id { "; it leads, and hands leadership over first" } else { "" };
            format!("{verb} replica {id}: voters {voters} -> {left}, failures tolerated {before} -> {after}{leads}")
        }
        Some(_) => format!("{verb} replica {id}: it does not vote, voters stay {voters}"),
        None => format!("{verb} replica {id}: it is not a member, voters stay {voters}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plan counts votes, not replicas, and says when the leader is meant.
    #[test]
    fn the_plan_counts_votes() {
        let member = |id: u64, voter: bool| json!({"id": id, "voter": voter});
        let status =
            json!({"leader": 1, "members": [member(1, true), member(2, true), member(3, true), member(4, false)]});
        assert_eq!(plan(&status, 2, "remove"), "remove replica 2: voters 3 -> 2, failures tolerated 1 -> 0");
        assert!(plan(&status, 1, "demote").ends_with("hands leadership over first"));
        assert_eq!(plan(&status, 4, "remove"), "remove replica 4: it does not vote, voters stay 3");
        assert_eq!(plan(&status, 9, "remove"), "remove replica 9: it is not a member, voters stay 3");
    }
}
