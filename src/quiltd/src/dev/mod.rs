//! `quiltd dev`: lays out a directory, makes certificates and keys, starts replicas and agents as child processes,
//! keeps `dev.json` true, and stops everything again. It has no privilege: it uses the same commands and routes as
//! anyone.

mod layout;
mod manifest;
mod ports;
mod shell;
mod supervise;

pub(crate) use supervise::FOLLOW_STDIN;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::assemble::termination;
use crate::dev::layout::{End, Layout};
use crate::dev::supervise::{Child, Supervisor};
use crate::exit::{Failure, Hinted};
use crate::kv::KvApi;
use crate::{http, output};

/// What the command line decided.
pub(crate) struct Options {
    pub(crate) replicas: u16,
    pub(crate) agents: u16,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) fresh: bool,
    pub(crate) restart: bool,
    pub(crate) api_port: u16,
    pub(crate) http_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) kv_api: KvApi,
    pub(crate) log: String,
}

/// Longest wait for all replicas to become ready: far above what a loaded machine needs.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between looks at `/readyz`.
const READY_POLL: Duration = Duration::from_millis(25);

/// Runs until a signal says stop.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = layout::directory(options.dir.as_deref(), options.fresh)?;
    let result = runtime.block_on(serve(options, &dir.path));
    if dir.end == End::Removed {
        let _ = std::fs::remove_dir_all(&dir.path);
    }
    result
}

async fn serve(options: &Options, dir: &std::path::Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let layout = Arc::new(Layout::prepare(dir, options)?);
    let mut supervisor = Supervisor::new(Arc::clone(&layout), options.restart);
    let result = tokio::select! {
        result = start(options, &layout, &mut supervisor, started) => result,
        () = termination() => {
            supervisor.stop().await;
            return Ok(());
        }
    };
    let result = match result {
        Ok(()) => supervisor.watch_until(termination()).await,
        failed => failed,
    };
    supervisor.stop().await;
    result
}

async fn start(
    options: &Options,
    layout: &Layout,
    supervisor: &mut Supervisor,
    started: Instant,
) -> anyhow::Result<()> {
    for replica in &layout.replicas {
        supervisor.start(Child::replica(replica, layout, options.kv_api, &options.log))?;
    }
    // Programs that look early find at least the replicas.
    supervisor.write_manifest()?;
    let client = http::client(Some(&layout.ca_pem), Duration::from_secs(5))?;
    wait_ready(&client, layout, supervisor).await?;
    if options.agents > 0 {
        let token = join_token(&client, layout, options.agents).await?;
        layout.write_join_token(&token)?;
        for agent in &layout.agents {
            supervisor.start(Child::agent(agent, layout, &options.log))?;
        }
    }
    supervisor.write_manifest()?;
    shell::prepare(layout)?;
    output::line(&shell::greeting(layout, started.elapsed()));
    output::line("ready");
    Ok(())
}

async fn wait_ready(client: &reqwest::Client, layout: &Layout, supervisor: &mut Supervisor) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    for replica in &layout.replicas {
        let url = format!("{}/readyz", replica.api);
        loop {
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            if let Some(dead) = supervisor.first_dead() {
                let log = layout.log_file(&dead);
                return Err(anyhow::anyhow!("{dead} ended before it was ready")).hint(format!("see {}", log.display()));
            }
            if Instant::now() > deadline {
                let text = format!("replica {} was not ready within {} s", replica.id, READY_TIMEOUT.as_secs());
                return Err(Failure::TimedOut(text))
                    .hint(format!("see {}", layout.log_file(&format!("replica-{}", replica.id)).display()));
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
    Ok(())
}

/// Asks for a join token as the tenant does. Every agent that has no identity yet spends one use.
async fn join_token(client: &reqwest::Client, layout: &Layout, agents: u16) -> anyhow::Result<String> {
    let replica = layout.replicas.first().context("there is a first replica")?;
    let answer = client
        .post(format!("{}/api/clusters/default/join-tokens", replica.api))
        .header("x-api-key", &layout.keys.api_key)
        .json(&serde_json::json!({ "max_uses": agents, "ttl_secs": 3600 }))
        .send()
        .await?;
    let status = answer.status();
    let body: serde_json::Value = answer.json().await?;
    body["join_token"]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("no join token was given ({status}): {body}"))
}
