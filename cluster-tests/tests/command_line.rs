//! The command line as an operator and a script meet it: exit codes, errors with something to do, answers alone on
//! standard output.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cluster_tests::cluster::{Cluster, Shape};
use cluster_tests::terminal::Terminal;
use rustix::process::{Pid, Signal, kill_process};

/// Each exit code is provoked, with its words: 1 failed, 2 usage, 3 not found, 4 unavailable, 5 refused, 6 timed out.
#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_with_their_code_and_what_to_do() -> Result<()> {
    let cluster = Cluster::start(Shape { replicas: 1, agents: 0 }).await?;
    let terminal = Terminal::of(&cluster, 1)?;
    terminal.done("tenant create acme").await?;
    let api_key = Path::new(&cluster.manifest().ca).with_file_name("api.key").display().to_string();
    let http = cluster.replica(1)?.http.replace("http://", "");
    let backup = cluster.directory().join("cp.quilt").display().to_string();
    terminal.done(&format!("operator snapshot save {backup}")).await?;

    terminal.refused("tenant create acme", 1, "tenant name 'acme' is already in use", "").await?;
    terminal.refused(&format!("tenant list --token-file {api_key}"), 1, "a valid", "give the right key's file").await?;
    terminal.refused("status -o yaml", 2, "invalid value 'yaml'", "").await?;
    terminal.refused("statsu", 2, "unrecognized subcommand 'statsu'", "").await?;
    terminal.refused("status --timeout soon", 2, "invalid value 'soon'", "").await?;
    terminal.refused("server --log x=y=z", 2, "--log 'x=y=z' is not of the form", "").await?;
    terminal.refused("tenant key nobody", 3, "tenant 'nobody' not found", "quiltd tenant list").await?;
    let empty = format!("operator data check --data-dir {}", cluster.directory().display());
    terminal.refused(&empty, 3, "'", "").await?;
    let other = format!("cluster join-token prod --token-file {api_key}");
    terminal.refused(&other, 3, "this tenant has no cluster 'prod'", "quiltd cluster list").await?;
    terminal.refused("status --address 127.0.0.1:1", 4, "replica at 'https://127.0.0.1:1' was not", "start").await?;
    let plain = format!("status --address {http}");
    terminal
        .refused(&plain, 4, &format!("replica at 'https://{http}' was not reached: what listens"), "the API")
        .await?;
    let restore = format!("operator snapshot restore {backup} --initial-cluster 1=127.0.0.1:1 --data-dir /nowhere");
    terminal.refused(&restore, 5, "nobody is there to ask", "say --yes").await?;
    terminal.refused("tenant delete acme", 5, "nobody is there to ask", "say --yes").await?;
    ensure!(terminal.done("tenant list").await?.contains("acme"), "it was deleted unasked");

    let process = cluster.pids().first().copied().and_then(Pid::from_raw).context("the replica lives")?;
    kill_process(process, Signal::STOP)?;
    let slow = terminal.refused("status --timeout 300ms", 6, "replica at 'https://127", "ask another replica").await;
    kill_process(process, Signal::CONT)?;
    slow?;
    cluster.passed();
    Ok(())
}

/// A replica has the allocator's settings of decision 33, in the process that was started: nothing of it is a second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_runs_with_its_allocator_settled() -> Result<()> {
    let cluster = Cluster::start(Shape { replicas: 1, agents: 0 }).await?;
    let told = cluster.replica(1)?;
    let pid = told.pid.context("the replica lives")?;
    let of = |what: &str| std::fs::read(format!("/proc/{pid}/{what}"));
    let environment = String::from_utf8(of("environ")?)?;
    // What reads the settings may take them apart where they stand.
    ensure!(environment.contains("GLIBC_TUNABLES=glibc.malloc.hugetlb=1"), "{environment:?}");
    ensure!(environment.contains("glibc.malloc.arena_max="), "{environment:?}");
    let arguments = String::from_utf8(of("cmdline")?)?;
    ensure!(arguments.split_terminator('\0').eq(told.argv.iter().map(String::as_str)), "{arguments:?}");
    ensure!(String::from_utf8(of("comm")?)?.trim() == "quiltd");
    cluster.passed();
    Ok(())
}

/// A tenant from its first key to its end, by its name; what a script asks for is all that is on standard output.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_clusters_are_kept_from_the_command_line() -> Result<()> {
    let cluster = Cluster::start(Shape { replicas: 1, agents: 0 }).await?;
    let terminal = Terminal::of(&cluster, 1)?;
    let key = cluster.directory().join("acme.key");
    std::fs::write(&key, terminal.done("tenant create acme -o jsonpath={.api_key}").await?)?;
    let acme = terminal.with_key(&key);
    let id = acme.done("cluster create prod --pod-cidr 10.42.0.0/16 --node-cidr-prefix 24 -o jsonpath={.id}").await?;
    ensure!(acme.done("cluster list").await?.lines().any(|line| line.starts_with(&id) && line.contains("prod")));
    let token = acme.done("cluster join-token prod --uses 3 --ttl 10m -o jsonpath={.join_token}").await?;
    ensure!(token.starts_with("qj_"), "{token}");
    let set = format!("cluster set {id} --node-timeout 20s -o jsonpath={{.node_timeout_secs}}");
    ensure!(terminal.done(&set).await? == "20");

    terminal.done("tenant disable acme").await?;
    acme.refused("cluster list", 1, "", "give the right key's file").await?;
    terminal.done("tenant enable acme").await?;
    acme.done("cluster delete prod --yes").await?;
    ensure!(acme.done("cluster list").await?.lines().count() == 1, "only the header is left");
    terminal.done("tenant delete acme --yes").await?;
    acme.refused("cluster list", 1, "", "give the right key's file").await?;

    ensure!(terminal.done("version -o jsonpath={.quiltd}").await? == env!("CARGO_PKG_VERSION"));
    ensure!(terminal.done("status -o jsonpath={.leader}").await? == "1");
    terminal.done("help operator recover apply").await?;
    ensure!(terminal.done("completions bash").await?.contains("join-token"));
    cluster.passed();
    Ok(())
}
