//! The main job as its users do it: kubectl and Quilt clients, real workloads on agents, through the death of the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_tests::client::{Client, Credential};
use cluster_tests::cluster::{Cluster, Shape, condition, items, text};
use cluster_tests::kubectl::Kubectl;
use cluster_tests::wait::until;
use cluster_tests::watch::{Event, Watch};
use cluster_tests::writers::{self, Writers};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A web server's place is held by a shell that says hello and ends when asked to.
const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 5
  selector: {matchLabels: {app: web}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 2, maxUnavailable: 1}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: main
        image: none
        command: ["/bin/sh", "-c"]
        args: ["trap 'exit 0' TERM; echo hello from $NAME version $VERSION; while :; do sleep 0.2; done"]
        env:
        - {name: VERSION, value: "1"}
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") && pod["metadata"]["deletionTimestamp"].is_null()
}

async fn web_pods(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let list = kubectl.json(&["get", "pods", "-l", "app=web"]).await?;
    Ok(items(&list).cloned().collect())
}

/// Waits until the Service's endpoints name exactly these pods.
async fn endpoints_are(kubectl: &Kubectl, names: &BTreeSet<String>) -> Result<()> {
    until("endpoints of the ready pods", || async {
        let slices = kubectl.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web"]).await?;
        let named: BTreeSet<String> = items(&slices)
            .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
            .filter(|endpoint| endpoint["conditions"]["ready"] != json!(false))
            .map(|endpoint| text(&endpoint["targetRef"]["name"]))
            .collect();
        ensure!(&named == names, "endpoints name {named:?}, ready are {names:?}");
        Ok(())
    })
    .await
}

async fn rolled_out(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["rollout", "status", "deployment/web", "--timeout=120s"]).await.map(drop)
}

fn names(pods: &[Value]) -> BTreeSet<String> {
    pods.iter().map(|pod| text(&pod["metadata"]["name"])).collect()
}

/// Replays a watch of pods and checks a rolling update's bounds after every event: never more than `most` pods that are not ending, never fewer
/// than `least` that are available.
fn check_surge(before: &[Value], events: &[Event], most: usize, least: usize) -> Result<()> {
    let mut pods: BTreeMap<String, Value> =
        before.iter().map(|pod| (text(&pod["metadata"]["uid"]), pod.clone())).collect();
    for event in events {
        let uid = text(&event.object["metadata"]["uid"]);
        if event.kind == "DELETED" {
            pods.remove(&uid);
        } else {
            pods.insert(uid, event.object.clone());
        }
        let going = pods.values().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count();
        let available = pods.values().filter(|pod| is_ready(pod)).count();
        let at = event.revision();
        ensure!(going <= most, "{going} pods at revision {at}, at most {most} are allowed");
        ensure!(available >= least, "{available} pods are available at revision {at}, at least {least} must be");
    }
    Ok(())
}

/// kubectl applies, waits, reads logs, scales, rolls within its bounds, cordons, drains and deletes; each time through another replica.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_a_deployment() -> Result<()> {
    let cluster = Cluster::start(Shape { replicas: 3, agents: 2 }).await?;
    let kubectl = Kubectl::new(&cluster)?;
    let replicas = &cluster.manifest().replicas;
    let (one, two, three) =
        (kubectl.through(&replicas[0]), kubectl.through(&replicas[1]), kubectl.through(&replicas[2]));

    one.run_with(&["apply", "-f", "-"], MANIFEST).await?;
    rolled_out(&two).await?;
    let pods = web_pods(&three).await?;
    ensure!(pods.len() == 5 && pods.iter().all(is_ready), "five ready pods: {pods:#?}");
    let nodes: BTreeSet<String> = pods.iter().map(|pod| text(&pod["spec"]["nodeName"])).collect();
    ensure!(nodes.len() == 2, "both nodes are used: {nodes:?}");
    let service = one.json(&["get", "service", "web"]).await?;
    ensure!(text(&service["spec"]["clusterIP"]).starts_with("10."), "the service has an address: {service}");
    endpoints_are(&two, &names(&pods)).await?;

    // The shell says hello after its process has started, which is when the pod is ready: the line may take a moment.
    for (pod, through) in names(&pods).iter().zip([&one, &two, &three].into_iter().cycle()) {
        until("a pod's output", || async {
            let said = through.run(&["logs", pod, "--tail=1"]).await?;
            ensure!(said == format!("hello from {pod} version 1\n"), "{said:?}");
            Ok(())
        })
        .await?;
    }

    // Events are written behind everything of more weight.
    until("who placed and who started each pod, told as Events", || async {
        for pod in names(&pods) {
            let about = format!("involvedObject.name={pod}");
            let events = two.json(&["get", "events", "--field-selector", &about]).await?;
            let reasons: BTreeSet<String> = items(&events).map(|event| text(&event["reason"])).collect();
            let wanted = ["Scheduled", "Created", "Started"];
            ensure!(wanted.iter().all(|reason| reasons.contains(*reason)), "{pod} has {reasons:?}");
        }
        Ok(())
    })
    .await?;

    three.run(&["label", "pods", "--selector=app=web", "tier=front"]).await?;
    let explained = one.run(&["explain", "deployment.spec.strategy"]).await?;
    ensure!(explained.contains("FIELD: strategy <DeploymentStrategy>"), "{explained}");
    one.run(&["create", "configmap", "tried", "--from-literal=a=b", "--dry-run=server"]).await?;
    let stored = three.run(&["get", "configmaps", "--output=name"]).await?;
    ensure!(!stored.contains("tried"), "a dry run was stored: {stored}");
    two.run(&["scale", "deployment/web", "--replicas=8"]).await?;
    rolled_out(&three).await?;
    let pods = web_pods(&one).await?;
    ensure!(pods.len() == 8 && pods.iter().all(is_ready), "eight ready pods: {pods:#?}");

    let admin = cluster.admin(replicas[1].id)?;
    let list = admin.get(&format!("{PODS}?labelSelector=app%3Dweb")).await?.expect(200)?;
    let before: Vec<Value> = items(&list).cloned().collect();
    let revision = text(&list["metadata"]["resourceVersion"]);
    let mut watch = Watch::open(&admin.separate()?, &format!("{PODS}?labelSelector=app%3Dweb"), &revision).await?;
    three.run(&["set", "env", "deployment/web", "VERSION=2"]).await?;
    rolled_out(&one).await?;
    let old = names(&before);
    watch
        .until("the end of all old pods", |events| {
            let gone: BTreeSet<String> = events
                .iter()
                .filter(|event| event.kind == "DELETED")
                .map(|event| text(&event.object["metadata"]["name"]))
                .collect();
            old.is_subset(&gone).then_some(())
        })
        .await?;
    watch.check_order()?;
    check_surge(&before, &watch.events(), 8 + 2, 8 - 1)?;
    let pods = web_pods(&two).await?;
    ensure!(pods.len() == 8 && pods.iter().all(is_ready), "eight ready pods of the new version: {pods:#?}");
    let pod = names(&pods).pop_first().context("a pod")?;
    until("the new version's output", || async {
        let said = three.run(&["logs", &pod]).await?;
        ensure!(said == format!("hello from {pod} version 2\n"), "{said:?}");
        Ok(())
    })
    .await?;

    let node = cluster.manifest().agents[0].name.clone();
    one.run(&["cordon", &node]).await?;
    two.run(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"]).await?;
    rolled_out(&three).await?;
    let pods = web_pods(&one).await?;
    let left: Vec<&Value> = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node.as_str()).collect();
    ensure!(left.is_empty(), "a drained node keeps {left:#?}");
    ensure!(pods.iter().filter(|pod| is_ready(pod)).count() == 8, "eight ready pods elsewhere: {pods:#?}");
    endpoints_are(&two, &names(&pods)).await?;
    three.run(&["uncordon", &node]).await?;

    one.run_with(&["delete", "-f", "-", "--timeout=60s"], MANIFEST).await?;
    two.run(&["wait", "--for=delete", "pods", "-l", "app=web", "--timeout=120s"]).await?;
    until("nothing of the deployment is left", || async {
        let left = three.json(&["get", "deployments,replicasets,pods,services,endpointslices"]).await?;
        let count = items(&left).filter(|object| text(&object["metadata"]["name"]).starts_with("web")).count();
        ensure!(count == 0, "{count} objects are left");
        Ok(())
    })
    .await?;
    cluster.passed();
    Ok(())
}

/// The replicas in turn: each call goes to the next one.
struct InTurn {
    clients: Vec<Client>,
    next: std::cell::Cell<usize>,
}

impl InTurn {
    fn next(&self) -> &Client {
        let at = self.next.get();
        self.next.set(at + 1);
        &self.clients[at % self.clients.len()]
    }

    fn with(&self, credential: Credential) -> Client {
        self.next().with(credential)
    }
}

/// Quilt's main flow with a different replica at every call: cluster, join token, nodes, workload, placements, drain, delete.
#[tokio::test]
async fn quilt_runs_a_workload() -> Result<()> {
    let cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let clients = cluster.ids().into_iter().map(|id| cluster.tenant(id)).collect::<Result<_>>()?;
    let turn = InTurn { clients, next: std::cell::Cell::new(0) };
    for _replica in 0..3 {
        let health = turn.with(Credential::None).get("/health").await?.expect(200)?;
        ensure!(health["status"] == "ok", "{health}");
    }
    // These nodes beat once only; silence is not what is shown here.
    let wanted = json!({"name": "prod", "pod_cidr": "10.42.0.0/16", "node_cidr_prefix": 24, "node_timeout_secs": 3600});
    let made = turn.next().post("/api/clusters", &wanted).await?.expect(201)?;
    let id = text(&made["id"]);
    let base = format!("/api/clusters/{id}");
    turn.next().get(&base).await?.expect(200)?;
    let taken = turn.next().post("/api/clusters", &wanted).await?.expect(409)?;
    ensure!(taken["error_code"] == "NAME_TAKEN", "{taken}");
    let token = turn.next().post(&format!("{base}/join-tokens"), &json!({"max_uses": 2})).await?.expect(201)?;
    let token = Credential::Join(text(&token["join_token"]));

    let agents = format!("/api/agent{}/nodes", base.trim_start_matches("/api"));
    let mut nodes = Vec::new();
    for name in ["node-a", "node-b"] {
        let body =
            json!({"name": name, "bridge_name": "quilt0", "dns_port": 1053, "egress_limit_mbit": 0, "pod_agent": true});
        let joined = turn.with(token.clone()).post(&format!("{agents}/register"), &body).await?.expect(201)?;
        let node = (text(&joined["node"]["id"]), Credential::Node(text(&joined["node_token"])));
        let ready = json!({"state": "ready"});
        turn.with(node.1.clone()).post(&format!("{agents}/{}/heartbeat", node.0), &ready).await?.expect(200)?;
        nodes.push(node);
    }
    let late = json!({"name": "node-c", "bridge_name": "quilt0", "dns_port": 1053, "egress_limit_mbit": 0});
    turn.with(token).post(&format!("{agents}/register"), &late).await?.expect(401).context("a spent token")?;
    let list = turn.next().get(&format!("{base}/nodes")).await?.expect(200)?;
    let states: Vec<&Value> = list["nodes"].as_array().into_iter().flatten().map(|node| &node["state"]).collect();
    ensure!(states == ["ready", "ready"], "{list}");

    let spec = json!({"name": "web", "replicas": 4, "command": ["/bin/web"], "image": "web:1"});
    let workload = turn.next().post(&format!("{base}/workloads"), &spec).await?.expect(201)?;
    let workload = format!("{base}/workloads/{}", text(&workload["id"]));
    let mut reported = 0;
    for (node, token) in &nodes {
        let assigned = turn.with(token.clone()).get(&format!("{agents}/{node}/placements")).await?.expect(200)?;
        for entry in assigned["assignments"].as_array().into_iter().flatten() {
            ensure!(entry["pod"]["kind"] == "Pod", "an agent that can run pods gets them: {entry}");
            let path = format!("{agents}/{node}/placements/{}/report", text(&entry["placement"]["id"]));
            let running = json!({"state": "running", "container_id": format!("ctr-{reported}")});
            turn.with(token.clone()).post(&path, &running).await?.expect(200)?;
            reported += 1;
        }
    }
    ensure!(reported == 4, "{reported} placements were on the nodes");
    let placed = turn.next().get(&format!("{base}/placements")).await?.expect(200)?;
    let placed = placed["placements"].as_array().cloned().unwrap_or_default();
    ensure!(placed.iter().all(|placement| placement["state"] == "running"), "{placed:#?}");
    let spread = |node: &str| placed.iter().filter(|placement| placement["node_id"] == node).count();
    ensure!(nodes.iter().all(|(node, _)| spread(node) == 2), "two on each: {placed:#?}");
    let shown = turn.next().get(&workload).await?.expect(200)?;
    ensure!(shown["status"]["running"] == 4, "{shown}");
    let path = format!("/clusters/{id}{PODS}");
    let pods = turn.next().get(&path).await?.expect(200).context("the same as Kubernetes shows it")?;
    ensure!(items(&pods).count() == 4, "{pods}");

    let mut smaller = spec.clone();
    smaller["replicas"] = json!(2);
    turn.next().put(&workload, &smaller).await?.expect(200)?;
    until("two placements", || async {
        let placed = turn.next().get(&format!("{base}/placements")).await?.expect(200)?;
        let mut indexes: Vec<u64> = placed["placements"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|placement| placement["replica_index"].as_u64())
            .collect();
        indexes.sort_unstable();
        ensure!(indexes == [0, 1], "{placed}");
        Ok(())
    })
    .await?;
    let drained = &nodes[0].0;
    turn.next().post(&format!("{base}/nodes/{drained}/drain"), &json!({})).await?.expect(200)?;
    turn.next().post(&format!("{base}/reconcile"), &json!({})).await?.expect(200)?;
    until("all placements have left the drained node", || async {
        let placed = turn.next().get(&format!("{base}/placements")).await?.expect(200)?;
        let mut placed = placed["placements"].as_array().into_iter().flatten();
        ensure!(placed.all(|placement| placement["node_id"] == nodes[1].0.as_str()), "some are still there");
        Ok(())
    })
    .await?;
    turn.next().delete(&format!("{base}/nodes/{drained}")).await?.expect(200)?;
    turn.next().get(&format!("{base}/nodes/{drained}")).await?.expect(404)?;
    let dead = turn.with(nodes[0].1.clone()).get(&format!("{agents}/{drained}/allocation")).await?;
    dead.expect(401).context("a removed node's token")?;
    turn.next().delete(&workload).await?.expect(200)?;
    turn.next().get(&workload).await?.expect(404)?;
    turn.next().delete(&base).await?.expect(200)?;
    turn.next().get(&base).await?.expect(404)?;
    cluster.passed();
    Ok(())
}

/// What an object's owner sees of one pod's process: the same for as long as it was not started anew.
fn runs(pods: &[Value]) -> BTreeMap<String, (String, u64)> {
    pods.iter()
        .map(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            let run = (text(&status["containerID"]), status["restartCount"].as_u64().unwrap_or(0));
            (text(&pod["metadata"]["name"]), run)
        })
        .collect()
}

/// With a deployment running and writers on all replicas the leader is killed: no acknowledged write is lost or doubled, clients of live replicas
/// see no error, pods go on as they were, the new leader's controllers act, a watch on a follower misses nothing, the dead replica returns.
#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_without_the_leader() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 2 }).await?;
    let kubectl = Kubectl::new(&cluster)?;
    kubectl.run_with(&["apply", "-f", "-"], MANIFEST).await?;
    rolled_out(&kubectl).await?;
    let leader = cluster.leader().await?;
    let live: Vec<u16> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let survivor = kubectl.through(cluster.replica(live[1])?);
    let before = web_pods(&survivor).await?;

    let follower = cluster.admin(live[0])?;
    let list = follower.get(writers::PATH).await?.expect(200)?;
    let mut watch =
        Watch::open(&follower.separate()?, writers::PATH, &text(&list["metadata"]["resourceVersion"])).await?;
    let clients: Vec<(u16, Client)> =
        cluster.ids().into_iter().map(|id| Ok((id, cluster.admin(id)?))).collect::<Result<_>>()?;
    let writers = Writers::start(clients)?;
    writers.progress(&cluster.ids(), 30).await?;

    let killed_at = Instant::now();
    cluster.kill(leader).await?;
    // The new leader's controllers act: what only they can do happens through any live replica.
    let scaled = json!({"spec": {"replicas": 7}});
    follower.patch("/apis/apps/v1/namespaces/default/deployments/web/scale", &scaled).await?.expect(200)?;
    rolled_out(&survivor).await?;
    println!("seven pods ready {:?} after the kill", killed_at.elapsed());
    writers.progress(&live, 30).await?;
    let after = web_pods(&survivor).await?;
    ensure!(after.len() == 7 && after.iter().all(is_ready), "seven ready pods: {after:#?}");
    let runs_after = runs(&after);
    for (name, run) in runs(&before) {
        ensure!(runs_after.get(&name) == Some(&run), "pod {name} did not go on as it was: {run:?}, {runs_after:?}");
    }
    let some = runs_after.keys().next().context("a pod")?;
    let said = survivor.run(&["logs", some]).await?;
    ensure!(said == format!("hello from {some} version 1\n"), "{said:?}");

    cluster.restart(leader)?;
    cluster.ready(leader).await?;
    writers.progress(&cluster.ids(), 10).await?;
    let records = writers.stop().await?;
    for id in &live {
        let record = &records[id];
        let (pause, median) = writers::unharmed(*id, record)?;
        println!("replica {id}: {} writes, median {median:?}, longest pause {pause:?}", record.acknowledged.len());
        ensure!(pause < Duration::from_secs(10), "a client of live replica {id} waited {pause:?}");
    }
    for id in cluster.ids() {
        writers::judge(&records, &cluster.admin(id)?).await.with_context(|| format!("as replica {id} shows it"))?;
    }
    for path in [writers::PATH, PODS, "/api/v1/nodes"] {
        cluster.converged(path).await?;
    }
    let written: BTreeSet<String> =
        records.values().flat_map(|record| &record.acknowledged).map(|write| write.name.clone()).collect();
    watch
        .until("every acknowledged write", |events| {
            let shown: BTreeSet<String> = events.iter().map(|event| text(&event.object["metadata"]["name"])).collect();
            written.is_subset(&shown).then_some(())
        })
        .await?;
    watch.check_order()?;
    kubectl.run_with(&["delete", "-f", "-", "--timeout=60s"], MANIFEST).await?;
    kubectl.run(&["wait", "--for=delete", "pods", "-l", "app=web", "--timeout=120s"]).await?;
    cluster.passed();
    Ok(())
}
