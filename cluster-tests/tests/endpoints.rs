//! The Service `kubernetes` leads to the replicas that live, in the built-in cluster and in every other.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::client::Client;
use cluster_tests::cluster::{Cluster, Shape, items};
use cluster_tests::wait::until;
use serde_json::{Value, json};

/// What clients know of kube-apiserver; a loaded host gets as much again.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// The addresses that subsets of Endpoints, or one slice, hold.
fn addresses(groups: &Value, ports: &str, ips: impl Fn(&Value) -> Vec<Value>) -> BTreeSet<String> {
    let groups = groups.as_array().into_iter().flatten();
    groups.flat_map(|group| ips(group).into_iter().map(|ip| format!("{ip}:{}", group[ports][0]["port"]))).collect()
}

/// Waits until Endpoints and slices of this cluster's API name exactly these replicas.
async fn lead_to(client: &Client, base: &str, replicas: &BTreeSet<String>) -> Result<()> {
    until(&format!("{base}: the Service kubernetes leads to {replicas:?}"), || async {
        let endpoints =
            client.get(&format!("{base}/api/v1/namespaces/default/endpoints/kubernetes")).await?.expect(200)?;
        let shown = addresses(&endpoints["subsets"], "ports", |subset| {
            subset["addresses"].as_array().into_iter().flatten().map(|address| address["ip"].clone()).collect()
        });
        ensure!(shown == *replicas, "Endpoints: {shown:?}");
        let path = format!("{base}/apis/discovery.k8s.io/v1/namespaces/default/endpointslices");
        let slices = client.get(&format!("{path}?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes")).await?;
        let slices: Vec<Value> = items(&slices.expect(200)?).cloned().collect();
        let shown = addresses(&Value::Array(slices), "ports", |slice| {
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().cloned().unwrap_or_default()).collect()
        });
        ensure!(shown == *replicas, "slices: {shown:?}");
        Ok(())
    })
    .await
}

/// All replicas are behind the Service, in a cluster made later too, whose first reader finds them. A killed follower's
/// address leaves within its lease and comes back with it; so does a killed leader's.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_replica_leaves_the_service() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let of = |cluster: &Cluster, ids: &[u16]| -> Result<BTreeSet<String>> {
        ids.iter()
            .map(|id| {
                let port = cluster.replica(*id)?.api.rsplit(':').next().context("an address has a port")?.to_owned();
                Ok(format!("\"127.0.0.1\":{port}"))
            })
            .collect()
    };
    let all = of(&cluster, &cluster.ids())?;
    let leader = cluster.leader().await?;
    lead_to(&cluster.admin(leader)?, "", &all).await?;

    let made = json!({"name": "later", "pod_cidr": "10.42.0.0/16"});
    let made = cluster.tenant(leader)?.post("/api/clusters", &made).await?.expect(201)?;
    let later = format!("/clusters/{}", made["id"].as_str().context("a cluster has an id")?);
    let born = format!("{later}/api/v1/namespaces/default/endpoints/kubernetes");
    cluster.admin(leader)?.get(&born).await?.expect(200).context("Endpoints are there with the cluster")?;
    lead_to(&cluster.admin(leader)?, &later, &all).await?;

    let follower = cluster.ids().into_iter().find(|id| *id != leader).context("a follower")?;
    for victim in [follower, leader] {
        cluster.kill(victim).await?;
        let killed = Instant::now();
        let living = cluster.living();
        let client = cluster.admin(living[0])?;
        for base in ["", &later] {
            lead_to(&client, base, &of(&cluster, &living)?).await?;
        }
        let took = killed.elapsed();
        println!("replica {victim} left the Service {took:?} after its death");
        ensure!(took < GONE_WITHIN, "replica {victim} was dead for {took:?} and still behind the Service");
        cluster.restart(victim)?;
        cluster.ready(victim).await?;
        lead_to(&client, "", &all).await?;
    }
    cluster.passed();
    Ok(())
}
