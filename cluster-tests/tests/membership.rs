//! Who belongs to the control plane, changed with the real binary as an operator changes it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use cluster_tests::binary;
use cluster_tests::client::{Client, Credential};
use cluster_tests::cluster::{Cluster, Shape};
use cluster_tests::terminal::Terminal;
use cluster_tests::wait::until;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn peers(terminal: &Terminal) -> Result<Value> {
    Ok(serde_json::from_str(&terminal.done("operator raft list-peers -o json").await?)?)
}

fn voters(status: &Value) -> Vec<u64> {
    let members = status["members"].as_array().into_iter().flatten();
    members.filter(|member| member["voter"] == true).filter_map(|member| member["id"].as_u64()).collect()
}

/// A replica that was started by hand; killed when dropped.
struct Joined {
    child: Child,
    data_dir: PathBuf,
    listen: String,
    peer: String,
    log: PathBuf,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Joined {
    fn start(data_dir: PathBuf, listen: String, peer: String, more: &[&str]) -> Result<Self> {
        let log = data_dir.with_extension("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new(binary::quiltd()?);
        command.arg("server").arg("--data-dir").arg(&data_dir).arg("--listen").arg(&listen);
        command.arg("--peer-listen").arg(&peer).args(more);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().context("quiltd cannot be started")?;
        Ok(Self { child, data_dir, listen, peer, log })
    }

    /// A new replica that joins through one of the cluster's.
    fn join(cluster: &Cluster, name: &str, through: u16, token: &str) -> Result<Self> {
        let (listen, peer) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
        let url = cluster.replica(through)?.api.clone();
        Self::start(cluster.directory().join(name), listen, peer, &["--join", &url, "--token-file", token])
    }

    fn client(&self, cluster: &Cluster) -> Result<Client> {
        let key = cluster.manifest().admin_token.clone();
        Client::new(&format!("https://{}", self.listen), cluster.authority(), Credential::Bearer(key))
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

async fn create(client: &Client, name: &str) -> Result<()> {
    client.post(MAPS, &json!({ "metadata": { "name": name } })).await?.expect(201).map(drop)
}

/// Three replicas join a lone one at the same moment by one token; each gets a number of its own and votes, has what was
/// written before, and takes writes. The token is spent then. One that is restarted knows by itself who it is; the first
/// replica can be lost and removed, and its number is never given again.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_join_all_at_once() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 1, agents: 0 }).await?;
    let terminal = Terminal::of(&cluster, 1)?;
    create(&cluster.admin(1)?, "before").await?;
    let token = cluster.directory().join("replica.token");
    std::fs::write(&token, terminal.done("token create --uses 3").await?)?;
    let token = token.to_str().context("a path of the test is text")?.to_owned();
    let mut joined = Vec::new();
    for n in 0..3 {
        joined.push(Joined::join(&cluster, &format!("joined-{n}"), 1, &token)?);
    }
    until("four replicas vote", || async {
        let votes = voters(&peers(&terminal).await?);
        let said = || joined.iter().map(Joined::said).collect::<Vec<_>>().join("\n--\n");
        ensure!(votes == [1, 2, 3, 4], "voters are {votes:?}\n{}", said());
        Ok(())
    })
    .await?;
    for (n, one) in joined.iter().enumerate() {
        let client = one.client(&cluster)?;
        until("it serves", || async { client.get(&format!("{MAPS}/before")).await?.expect(200).map(drop) }).await?;
        create(&client, &format!("through-{n}")).await?;
    }
    ensure!(!terminal.done("token list").await?.contains("of 3"), "the token is not spent");
    let mut late = Joined::join(&cluster, "late", 1, &token)?;
    let status = tokio::task::spawn_blocking(move || late.child.wait().map(|status| (status, late.said()))).await??;
    ensure!(!status.0.success() && status.1.contains("used up"), "{status:?}");

    // One is killed and started without any word of who it is.
    let again = joined.pop().context("three joined")?;
    let (data_dir, listen, peer) = (again.data_dir.clone(), again.listen.clone(), again.peer.clone());
    drop(again);
    let again = Joined::start(data_dir, listen, peer, &[])?;
    let client = again.client(&cluster)?;
    until("it is back", || async { client.get(&format!("{MAPS}/through-0")).await?.expect(200).map(drop) }).await?;
    joined.push(again);

    cluster.kill(1).await?;
    create(&client, "after").await?;
    let gone = || async { client.delete("/api/admin/replicas/1").await?.expect(200).map(drop) };
    until("the lost one is removed", gone).await?;
    let used = client.post("/api/admin/replicas", &json!({"id": 1, "address": "127.0.0.1:9"})).await?.expect(409)?;
    ensure!(used["error"].as_str().is_some_and(|text| text.contains("never used again")), "{used}");
    let status = client.get("/api/admin/status?from=leader").await?.expect(200)?;
    ensure!(voters(&status) == [2, 3, 4], "{status}");
    cluster.passed();
    Ok(())
}

/// Leadership goes where it is sent; a vote is taken and given back; what would leave too few voters is refused with what
/// to do instead; a replica that is lost is removed, and removing it again changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_changes_who_votes() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let leader = cluster.leader().await?;
    let [a, b] = cluster.ids().into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else {
        anyhow::bail!("there are not three")
    };
    let (on_a, on_b) = (Terminal::of(&cluster, a)?, Terminal::of(&cluster, b)?);
    let table = on_a.done("operator raft list-peers").await?;
    ensure!(table.contains("leader") && table.contains("TRAILS LEADER BY"), "{table}");
    let said = on_b.done(&format!("operator raft transfer-leadership {a}")).await?;
    ensure!(said.contains(&format!("replica {a} leads")), "{said}");
    ensure!(peers(&on_b).await?["leader"] == a);

    let demote = format!("operator raft demote {b}");
    let asked = on_a.failed(&demote, 2).await?;
    ensure!(asked.contains("voters 3 -> 2") && asked.contains("--yes"), "{asked}");
    ensure!(voters(&peers(&on_a).await?).len() == 3, "nothing was agreed to");
    on_a.done(&format!("{demote} --yes")).await?;
    ensure!(voters(&peers(&on_a).await?).len() == 2);
    create(&cluster.admin(b)?, "through-a-learner").await?;
    on_b.done(&format!("operator raft promote {b}")).await?;
    ensure!(voters(&peers(&on_a).await?).len() == 3);

    cluster.kill(b).await?;
    until("the loss is noticed", || async {
        ensure!(peers(&on_a).await?["failures_tolerated"] == 0);
        Ok(())
    })
    .await?;
    let refusal = on_a.failed(&format!("operator raft remove {leader} --yes"), 5).await?;
    ensure!(refusal.contains("1 of 2 voters would remain") && refusal.contains(&format!("remove {b}")), "{refusal}");
    for _ in 0..2 {
        on_a.done(&format!("operator raft remove {b} --yes")).await?;
    }
    ensure!(voters(&peers(&on_a).await?).len() == 2);
    let unknown = on_a.failed("operator raft remove 77 --yes", 3).await?;
    ensure!(unknown.contains("no replica 77"), "{unknown}");
    create(&cluster.admin(a)?, "after").await?;
    cluster.passed();
    Ok(())
}
