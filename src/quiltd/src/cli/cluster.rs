//! `quiltd cluster`: a tenant's Quilt clusters, and the tokens with which hosts join them.

use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::client::{Connection, duration};
use crate::cli::confirm::Confirm;
use crate::cli::form::Output;
use crate::exit::{Failure, hinted};
use crate::output;

/// Create, list and delete Quilt clusters, and make join tokens for hosts.
///
/// The credential is the key of the tenant that owns the cluster; only set takes the admin key. A cluster is named by
/// its name or by its id.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd cluster create prod --pod-cidr 10.42.0.0/16 --node-cidr-prefix 24 --token-file acme.key\n  quiltd cluster join-token prod --token-file acme.key -o jsonpath={.join_token} > join.token"
)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a cluster: a virtual Kubernetes API of its own.
    #[command(
        after_help = "Examples:\n  quiltd cluster create prod --pod-cidr 10.42.0.0/16 --node-cidr-prefix 24 --token-file acme.key"
    )]
    Create {
        /// The cluster's name, unique with its tenant.
        name: String,
        /// Network of its pods.
        #[arg(long, value_name = "CIDR")]
        pod_cidr: String,
        /// Length of the prefix of each node's part of that network.
        #[arg(long, value_name = "BITS")]
        node_cidr_prefix: u8,
    },
    /// List the tenant's clusters.
    #[command(after_help = "Examples:\n  quiltd cluster list --token-file acme.key\n  quiltd cluster list -o json")]
    List,
    /// Make a token with which hosts join a cluster as nodes. It is shown once.
    #[command(
        after_help = "Examples:\n  quiltd cluster join-token default\n  quiltd cluster join-token prod --uses 20 --ttl 2h -o jsonpath={.join_token} > join.token"
    )]
    JoinToken {
        /// The cluster's name or id.
        cluster: String,
        /// How many nodes may join with it.
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// How long it is good, such as 10m or 2h.
        #[arg(long, default_value = "1h", value_parser = duration, value_name = "TIME")]
        ttl: Duration,
    },
    /// Set how patient a cluster is with nodes that are not heard. Needs the admin key, and the cluster's id.
    #[command(after_help = "Examples:\n  quiltd cluster set default --node-timeout 40s --placement-grace 2m")]
    Set {
        /// The cluster's id.
        cluster: String,
        /// Silence after which a node is not ready.
        #[arg(long, value_parser = duration, value_name = "TIME")]
        node_timeout: Option<Duration>,
        /// Time from then on until its pods are made elsewhere.
        #[arg(long, value_parser = duration, value_name = "TIME")]
        placement_grace: Option<Duration>,
    },
    /// Delete a cluster with its nodes and everything in it. Asks once.
    #[command(after_help = "Examples:\n  quiltd cluster delete prod --token-file acme.key")]
    Delete {
        /// The cluster's name or id.
        cluster: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const CLUSTERS: &str = "/api/clusters";

impl Cluster {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match &self.verb {
            Verb::Create { name, pod_cidr, node_cidr_prefix } => {
                let wanted = json!({ "name": name, "pod_cidr": pod_cidr, "node_cidr_prefix": node_cidr_prefix });
                let made = self.connection.ask(&Method::POST, CLUSTERS, Some(&wanted))?;
                self.output.show(&made, |made| table(std::slice::from_ref(made)))
            }
            Verb::List => {
                let list = self.connection.ask(&Method::GET, CLUSTERS, None)?;
                self.output.show(&list, |list| table(list["clusters"].as_array().map_or(&[], Vec::as_slice)))
            }
            Verb::JoinToken { cluster, uses, ttl } => {
                let path = format!("{CLUSTERS}/{}/join-tokens", self.id(cluster)?);
                let wanted = json!({ "max_uses": uses, "ttl_secs": ttl.as_secs() });
                let made = self.connection.ask(&Method::POST, &path, Some(&wanted))?;
                self.output.show(&made, |made| {
                    let row = [&made["cluster_id"], &made["max_uses"], &made["join_token"]].map(text).to_vec();
                    output::table(&["CLUSTER", "USES", "JOIN TOKEN (shown once)"], &[row]);
                })
            }
            Verb::Set { cluster, node_timeout, placement_grace } => {
                let mut change = Map::new();
                for (name, time) in [("node_timeout_secs", node_timeout), ("placement_grace_secs", placement_grace)] {
                    change.extend(time.map(|time| (name.to_owned(), json!(time.as_secs()))));
                }
                if change.is_empty() {
                    return Err(Failure::Usage("give --node-timeout, --placement-grace or both".into()).into());
                }
                let path = format!("/api/admin/clusters/{cluster}");
                let set = self.connection.ask(&Method::PATCH, &path, Some(&Value::Object(change)))?;
                self.output.show(&set, |set| {
                    let row = [&set["id"], &set["node_timeout_secs"], &set["placement_grace_secs"]].map(text).to_vec();
                    output::table(&["CLUSTER", "NODE TIMEOUT (s)", "PLACEMENT GRACE (s)"], &[row]);
                })
            }
            Verb::Delete { cluster, confirm } => {
                let id = self.id(cluster)?;
                confirm.ask(&format!("delete cluster '{cluster}', its nodes and everything in it?"))?;
                self.connection.ask(&Method::DELETE, &format!("{CLUSTERS}/{id}"), None)?;
                output::note(&format!("cluster '{cluster}' is deleted"));
                Ok(())
            }
        }
    }

    /// The id of a cluster that was given by name or by id.
    fn id(&self, cluster: &str) -> anyhow::Result<String> {
        let list = self.connection.ask(&Method::GET, CLUSTERS, None)?;
        let by = |field: &str| list["clusters"].as_array()?.iter().find(|one| one[field] == cluster);
        let found = by("id").or_else(|| by("name")).and_then(|found| found["id"].as_str());
        found.map(str::to_owned).ok_or_else(|| {
            let failure = Failure::NotFound(format!("this tenant has no cluster '{cluster}'"));
            hinted(failure, "quiltd cluster list shows them all; another tenant's need its key")
        })
    }
}

fn table(clusters: &[Value]) {
    let columns = ["id", "name", "pod_cidr", "node_cidr_prefix"];
    let rows: Vec<_> = clusters.iter().map(|cluster| columns.map(|column| text(&cluster[column])).to_vec()).collect();
    output::table(&["CLUSTER", "NAME", "POD CIDR", "NODE PREFIX"], &rows);
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
