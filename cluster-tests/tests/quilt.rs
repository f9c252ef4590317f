//! Quilt's routes while leaders are killed: what one replica has answered every other knows at once, every write takes
//! effect once, and clients of living replicas see no error.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use cluster_tests::client::{Client, Credential};
use cluster_tests::cluster::{Cluster, Shape, text};
use cluster_tests::wait::until;
use reqwest::Method;
use serde_json::{Value, json};

/// Ways through all routes that each task completes before and after a kill.
const WAYS: u64 = 4;

/// What a task walks with: the living replicas in turn, and where it counts.
#[derive(Clone)]
struct Walker {
    clients: Arc<Vec<Client>>,
    base: String,
    name: String,
    turn: Arc<AtomicU64>,
}

impl Walker {
    /// The next replica, asked by the tenant.
    fn next(&self) -> &Client {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.clients[usize::try_from(turn).unwrap_or_default() % self.clients.len()]
    }

    fn with(&self, credential: &Credential) -> Client {
        self.next().with(credential.clone())
    }

    /// A workload's life; it stays when `number` is odd.
    async fn workload(&self, number: u64) -> Result<Option<String>> {
        let name = format!("{}-{number}", self.name);
        let all = format!("{}/workloads", self.base);
        let spec = json!({"name": name, "replicas": 1, "command": ["x"]});
        let made = self.next().post(&all, &spec).await?.expect(201).context("POST of a workload")?;
        let path = format!("{all}/{}", text(&made["id"]));
        self.next().get(&path).await?.expect(200).context("GET of what was made elsewhere")?;
        let larger = json!({"name": name, "replicas": 2, "command": ["x"]});
        let put = self.next().put(&path, &larger).await?.expect(200).context("PUT of what was made elsewhere")?;
        ensure!(put["generation"] == 2, "it was put once: {put}");
        let read = self.next().get(&path).await?.expect(200)?;
        ensure!(read["spec"]["replicas"] == 2, "another replica shows an older one: {read}");
        if number % 2 == 1 {
            return Ok(Some(name));
        }
        self.next().delete(&path).await?.expect(200).context("DELETE of what was made elsewhere")?;
        self.next().get(&path).await?.expect(404).context("GET of what was deleted elsewhere")?;
        Ok(None)
    }

    /// A node's life: token, registration, heartbeat, end, each through another replica.
    async fn node(&self, number: u64) -> Result<()> {
        let token = self.next().post(&format!("{}/join-tokens", self.base), &json!({})).await?.expect(201)?;
        let token = Credential::Join(text(&token["join_token"]));
        let agents = format!("/api/agent{}/nodes", self.base.trim_start_matches("/api"));
        let register = format!("{agents}/register");
        let body = json!({"name": format!("{}-{number}", self.name), "bridge_name": "q0", "dns_port": 53,
            "egress_limit_mbit": 0});
        let joined = self.with(&token).post(&register, &body).await?.expect(201).context("a token made elsewhere")?;
        let again = json!({"name": "again", "bridge_name": "q0", "dns_port": 53, "egress_limit_mbit": 0});
        self.with(&token).post(&register, &again).await?.expect(401).context("a token spent elsewhere")?;
        let id = text(&joined["node"]["id"]);
        let node = Credential::Node(text(&joined["node_token"]));
        let beat = format!("{agents}/{id}/heartbeat");
        let registered = json!({"state": "registered"});
        self.with(&node).post(&beat, &registered).await?.expect(200).context("a node made elsewhere beats")?;
        let path = format!("{}/nodes/{id}", self.base);
        self.next().post(&format!("{path}/drain"), &json!({})).await?.expect(200)?;
        let shown = self.next().get(&path).await?.expect(200)?;
        ensure!(shown["node"]["state"] == "draining", "drained elsewhere: {shown}");
        self.next().delete(&path).await?.expect(200)?;
        self.next().get(&path).await?.expect(404)?;
        self.with(&node).post(&beat, &registered).await?.expect(401).context("a node removed elsewhere")?;
        Ok(())
    }

    /// Walks until told to stop; the workloads that are to be there.
    async fn walk(self, stop: Arc<AtomicBool>, ways: Arc<AtomicU64>) -> Result<BTreeSet<String>> {
        let mut made = BTreeSet::new();
        for number in 0.. {
            made.extend(self.workload(number).await.with_context(|| format!("way {number} of {}", self.name))?);
            self.node(number).await.with_context(|| format!("way {number} of {}", self.name))?;
            ways.fetch_add(1, Ordering::Relaxed);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(made)
    }
}

async fn workloads(client: &Client, base: &str) -> Result<Vec<String>> {
    let list = client.get(&format!("{base}/workloads")).await?.expect(200)?;
    Ok(list["workloads"].as_array().into_iter().flatten().map(|workload: &Value| text(&workload["name"])).collect())
}

/// Two tasks walk all routes through the living replicas in turn, each step at another one than the step before, while
/// the leader is killed, twice. No step fails, and what is there in the end is what was acknowledged, once.
#[tokio::test(flavor = "multi_thread")]
async fn quilt_is_exactly_once_through_leader_kills() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let made = json!({"name": "walked", "pod_cidr": "10.42.0.0/16"});
    let first = cluster.tenant(cluster.ids()[0])?;
    let base = format!("/api/clusters/{}", text(&first.post("/api/clusters", &made).await?.expect(201)?["id"]));
    let mut wanted = BTreeSet::new();
    for round in 0..2 {
        let leader = cluster.leader().await?;
        let living: Vec<u16> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
        let clients = living.iter().map(|id| cluster.tenant(*id)).collect::<Result<Vec<_>>>()?;
        let clients = Arc::new(clients);
        let (stop, ways) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks: Vec<_> = (0..2)
            .map(|task| {
                let walker = Walker {
                    clients: Arc::clone(&clients),
                    base: base.clone(),
                    name: format!("w{round}-{task}"),
                    turn: Arc::new(AtomicU64::new(task)),
                };
                tokio::spawn(walker.walk(Arc::clone(&stop), Arc::clone(&ways)))
            })
            .collect();
        let progress = async |more: u64| {
            let goal = ways.load(Ordering::Relaxed) + more;
            until("more ways", || async {
                let done = ways.load(Ordering::Relaxed);
                ensure!(done >= goal || tasks.iter().any(tokio::task::JoinHandle::is_finished), "{done} of {goal}");
                Ok(())
            })
            .await
        };
        progress(WAYS).await?;
        cluster.kill(leader).await?;
        progress(2 * WAYS).await?;
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            wanted.extend(task.await??);
        }
        println!("round {round}: {} ways, no error", ways.load(Ordering::Relaxed));
        cluster.restart(leader)?;
        cluster.ready(leader).await?;
    }
    for id in cluster.ids() {
        let mut shown = workloads(&cluster.tenant(id)?, &base).await?;
        shown.sort();
        let expected: Vec<String> = wanted.iter().cloned().collect();
        ensure!(shown == expected, "replica {id} shows {shown:?}, acknowledged were {expected:?}");
    }
    let nodes = first.get(&format!("{base}/nodes")).await?.expect(200)?;
    ensure!(nodes == json!({"nodes": []}), "{nodes}");
    cluster.passed();
    Ok(())
}

/// One request with a key through two replicas at once, while the leader dies, and once more when it is dead: one
/// effect and one answer, secrets and all.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_two_requests_one() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let leader = cluster.leader().await?;
    let living: Vec<u16> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let clients = living.iter().map(|id| cluster.tenant(*id)).collect::<Result<Vec<_>>>()?;
    let send = |client: &Client, path: &str, key: &str, body: &Value| {
        let request = client.request(Method::POST, path).header("idempotency-key", key).json(body);
        let client = client.clone();
        async move { client.send(request).await?.expect(201) }
    };
    let wanted = json!({"name": "keyed", "pod_cidr": "10.42.0.0/16"});
    let made = send(&clients[0], "/api/clusters", "make", &wanted).await?;
    ensure!(send(&clients[1], "/api/clusters", "make", &wanted).await? == made, "another replica answers the same");
    let base = format!("/api/clusters/{}", text(&made["id"]));
    let (tokens, workloads) = (format!("{base}/join-tokens"), format!("{base}/workloads"));
    let rounds = async |from: u64, to: u64| -> Result<Vec<(String, Value, Value)>> {
        let mut answers = Vec::new();
        for number in from..to {
            let key = format!("key-{number}");
            let spec = json!({"name": key, "replicas": 1, "command": ["x"]});
            let (one, two, token, twin) = tokio::try_join!(
                send(&clients[0], &workloads, &key, &spec),
                send(&clients[1], &workloads, &key, &spec),
                send(&clients[0], &tokens, &key, &json!({})),
                send(&clients[1], &tokens, &key, &json!({})),
            )?;
            ensure!(one == two, "{key} made {one} and {two}");
            ensure!(token == twin, "{key} made two tokens");
            answers.push((key, one, token));
        }
        Ok(answers)
    };
    let mut answers = rounds(0, 5).await?;
    let (during, killed) = tokio::join!(rounds(5, 15), cluster.kill(leader));
    killed?;
    answers.extend(during?);
    cluster.restart(leader)?;
    cluster.ready(leader).await?;
    let back = cluster.tenant(leader)?;
    for (key, workload, token) in &answers {
        let spec = json!({"name": key, "replicas": 1, "command": ["x"]});
        ensure!(send(&back, &workloads, key, &spec).await? == *workload, "{key}: the replica that came back differs");
        ensure!(send(&back, &tokens, key, &json!({})).await? == *token, "{key}: another token");
    }
    let mut shown = self::workloads(&back, &base).await?;
    shown.sort();
    let mut expected: Vec<String> = answers.into_iter().map(|(key, ..)| key).collect();
    expected.sort();
    ensure!(shown == expected, "there are {shown:?}");
    cluster.passed();
    Ok(())
}

/// Devices are exclusive: a workload goes where so many are free, to the ids it names, waits while there are none, and
/// goes on when some come free.
#[tokio::test(flavor = "multi_thread")]
async fn devices_are_exclusive() -> Result<()> {
    let cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let clients = cluster.ids().into_iter().map(|id| cluster.tenant(id)).collect::<Result<Vec<_>>>()?;
    let turn = AtomicU64::new(0);
    let next = || &clients[usize::try_from(turn.fetch_add(1, Ordering::Relaxed)).unwrap_or_default() % clients.len()];
    let made = json!({"name": "gpus", "pod_cidr": "10.42.0.0/16", "node_timeout_secs": 3600});
    let base = format!("/api/clusters/{}", text(&next().post("/api/clusters", &made).await?.expect(201)?["id"]));
    let agents = format!("/api/agent{}/nodes", base.trim_start_matches("/api"));
    let token = next().post(&format!("{base}/join-tokens"), &json!({"max_uses": 3})).await?.expect(201)?;
    let token = Credential::Join(text(&token["join_token"]));
    let mut nodes = Vec::new();
    for (name, devices) in [("none", vec![]), ("two", vec!["g0", "g1"]), ("one", vec!["h0"])] {
        let devices: Vec<Value> = devices.iter().map(|id| json!({"id": id, "vendor": "acme"})).collect();
        let body = json!({"name": name, "bridge_name": "q0", "dns_port": 53, "egress_limit_mbit": 0,
            "gpu_devices": devices});
        let joined = next().with(token.clone()).post(&format!("{agents}/register"), &body).await?.expect(201)?;
        let (id, token) = (text(&joined["node"]["id"]), Credential::Node(text(&joined["node_token"])));
        let ready = json!({"state": "ready"});
        next().with(token.clone()).post(&format!("{agents}/{id}/heartbeat"), &ready).await?.expect(200)?;
        nodes.push((id, token));
    }
    let workloads = format!("{base}/workloads");
    let run = async |name: &str, replicas: u64, gpus: Value| {
        let mut spec = json!({"name": name, "replicas": replicas, "command": ["x"]});
        spec.as_object_mut().context("an object")?.extend(gpus.as_object().cloned().unwrap_or_default());
        next().post(&workloads, &spec).await?.expect(201).map(|made| text(&made["id"]))
    };
    let places = async |workload: &str| -> Result<Vec<Option<usize>>> {
        for (id, token) in &nodes {
            // An agent that has seen a list without a Pod has let go of its devices.
            next().with(token.clone()).get(&format!("{agents}/{id}/placements")).await?.expect(200)?;
        }
        let list = next().get(&format!("{base}/placements")).await?.expect(200)?;
        let own = list["placements"].as_array().into_iter().flatten().filter(|one| one["workload_id"] == workload);
        let mut own: Vec<_> =
            own.map(|one| nodes.iter().position(|(node, _)| one["node_id"] == node.as_str())).collect();
        own.sort_unstable();
        Ok(own)
    };
    let are = async |workload: &str, wanted: &[Option<usize>]| {
        until("placements where they belong", || async {
            let found = places(workload).await?;
            ensure!(found == wanted, "{workload} is at {found:?}, not {wanted:?}");
            Ok(())
        })
        .await
    };
    let pinned = run("pinned", 1, json!({"gpu_count": 1, "gpu_ids": ["g1"]})).await?;
    are(&pinned, &[Some(1)]).await.context("the node that holds the id")?;
    let pair = run("pair", 1, json!({"gpu_count": 2})).await?;
    are(&pair, &[None]).await.context("no node has two free")?;
    let singles = run("singles", 3, json!({"gpu_count": 1})).await?;
    are(&singles, &[None, Some(1), Some(2)]).await.context("one free on each of two nodes")?;
    let twice = run("twice", 1, json!({"gpu_count": 1, "gpu_ids": ["g1"]})).await?;
    are(&twice, &[None]).await.context("the device is another's")?;
    let none = run("none", 2, json!({"gpu_count": 0})).await?;
    until("who wants no device goes anywhere", || async {
        ensure!(places(&none).await?.iter().all(Option::is_some), "not placed");
        Ok(())
    })
    .await?;
    next().delete(&format!("{workloads}/{singles}")).await?.expect(200)?;
    are(&pair, &[None]).await.context("g1 is still another's")?;
    next().delete(&format!("{workloads}/{pinned}")).await?.expect(200)?;
    // Both wait for g1; whoever gets it first, it is not given twice.
    until("one of the two waiting", || async {
        let found = (places(&pair).await?, places(&twice).await?);
        ensure!(found == (vec![Some(1)], vec![None]) || found == (vec![None], vec![Some(1)]), "{found:?}");
        Ok(())
    })
    .await?;
    let first = if places(&pair).await? == [None] { &twice } else { &pair };
    let second = if first == &pair { &twice } else { &pair };
    next().delete(&format!("{workloads}/{first}")).await?.expect(200)?;
    are(second, &[Some(1)]).await.context("the devices are free again")?;
    cluster.passed();
    Ok(())
}
