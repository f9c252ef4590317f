//! [`Supervisor`]: child processes of a development cluster. One child's death stops no other.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::dev::layout::{AgentPlace, Layout, ReplicaPlace};
use crate::dev::manifest::Manifest;
use crate::kv::KvApi;
use crate::output;
use crate::tls::files;

/// Set for children of `quiltd dev` only: their standard input is a pipe whose end means that dev is gone, however it
/// ended. A replica started by hand from `dev.json` does not have it.
pub(crate) const FOLLOW_STDIN: &str = "QUILTD_STOP_WITH_STDIN";

/// How long children may take to stop before they are killed.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// Pause between looks at the children.
const LOOK: Duration = Duration::from_millis(100);

/// One child: what it is called, how it is started, and the process while it lives.
pub(crate) struct Child {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    process: Option<tokio::process::Child>,
}

impl Child {
    /// A replica.
    pub(crate) fn replica(place: &ReplicaPlace, layout: &Layout, kv_api: KvApi, log: &str) -> Self {
        let members: Vec<String> =
            layout.replicas.iter().map(|replica| format!("{}=127.0.0.1:{}", replica.id, replica.peer_port)).collect();
        let mut arguments = vec![
            "server".to_owned(),
            format!("--id={}", place.id),
            format!("--data-dir={}", place.data_dir.display()),
            format!("--listen=127.0.0.1:{}", place.api_port),
            format!("--http-listen=127.0.0.1:{}", place.http_port),
            format!("--peer-listen=127.0.0.1:{}", place.peer_port),
            format!("--initial-cluster={}", members.join(",")),
        ];
        if kv_api == KvApi::On {
            arguments.push("--kv-api".to_owned());
        }
        Self::new(format!("replica-{}", place.id), arguments, log)
    }

    /// An agent.
    pub(crate) fn agent(place: &AgentPlace, layout: &Layout, log: &str) -> Self {
        let mut arguments = vec!["agent".to_owned()];
        arguments.extend(layout.replicas.iter().map(|replica| format!("--server={}", replica.api)));
        arguments.extend([
            "--cluster=default".to_owned(),
            format!("--join-token-file={}", layout.join_token_file.display()),
            format!("--ca={}", layout.ca.display()),
            format!("--name={}", place.name),
            format!("--data-dir={}", place.data_dir.display()),
            "--address=127.0.0.1".to_owned(),
            "--on-shutdown=stop".to_owned(),
        ]);
        Self::new(place.name.clone(), arguments, log)
    }

    fn new(name: String, arguments: Vec<String>, log: &str) -> Self {
        // The running binary's own path; /proc names it even when it was started through PATH.
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("quiltd"));
        let environment = BTreeMap::from([("QUILTD_LOG".to_owned(), log.to_owned())]);
        Self { name, program, arguments, environment, process: None }
    }

    /// Program and arguments, as `dev.json` shows them.
    pub(crate) fn argv(&self) -> Vec<String> {
        std::iter::once(self.program.display().to_string()).chain(self.arguments.iter().cloned()).collect()
    }

    /// Environment beyond the inherited one.
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        self.environment.clone()
    }

    /// Process id while it lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(tokio::process::Child::id)
    }

    fn spawn(&mut self, log: File) -> anyhow::Result<()> {
        let process = tokio::process::Command::new(&self.program)
            .args(&self.arguments)
            .envs(&self.environment)
            .env(FOLLOW_STDIN, "1")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A terminal's Ctrl-C goes to dev alone, which stops its children in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.process = Some(process);
        Ok(())
    }
}

/// All children.
pub(crate) struct Supervisor {
    children: Vec<Child>,
    layout: Arc<Layout>,
    restart: bool,
}

impl Supervisor {
    /// No children yet.
    pub(crate) const fn new(layout: Arc<Layout>, restart: bool) -> Self {
        Self { children: Vec::new(), layout, restart }
    }

    /// Writes `dev.json` and the files of process ids as things are now.
    pub(crate) fn write_manifest(&self) -> anyhow::Result<()> {
        for child in &self.children {
            let path = self.layout.pid_file(&child.name);
            let before = std::fs::read_to_string(&path).ok();
            match child.pid().map(|pid| pid.to_string()) {
                Some(pid) if before.as_ref() == Some(&pid) => {}
                Some(pid) => files::write_private(&path, pid.as_bytes())?,
                // A number that may soon be another process's is not left for a script to kill.
                None => drop(std::fs::remove_file(&path)),
            }
        }
        Manifest::of(&self.layout, self).write(&self.layout.dir)
    }

    /// The child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Child> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Starts a child.
    pub(crate) fn start(&mut self, mut child: Child) -> anyhow::Result<()> {
        child.spawn(self.log(&child.name)?)?;
        self.children.push(child);
        Ok(())
    }

    fn log(&self, name: &str) -> anyhow::Result<File> {
        let path = self.layout.log_file(name);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open '{}'", path.display()))
    }

    /// The name of a child that has ended, if any.
    pub(crate) fn first_dead(&mut self) -> Option<String> {
        self.children.iter_mut().find_map(|child| {
            let ended = child.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)));
            ended.then(|| child.name.clone())
        })
    }

    /// Looks after the children until `stop` completes.
    pub(crate) async fn watch_until(&mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            let mut changed = false;
            for n in 0..self.children.len() {
                changed |= self.look_after(n);
            }
            if changed {
                self.write_manifest()?;
            }
        }
    }

    /// Notices a child's end and starts it again if asked to. Returns whether its pid changed.
    fn look_after(&mut self, n: usize) -> bool {
        let restart = self.restart;
        let Some(child) = self.children.get_mut(n) else { return false };
        let Some(process) = child.process.as_mut() else {
            return restart && self.start_again(n);
        };
        let Ok(Some(status)) = process.try_wait() else { return false };
        let remedy = if restart { "it is started again" } else { "`--restart` would have it started again" };
        output::note(&format!("{} ended: {status}; {remedy}", child.name));
        child.process = None;
        if restart {
            self.start_again(n);
        }
        true
    }

    fn start_again(&mut self, n: usize) -> bool {
        let Some(name) = self.children.get(n).map(|child| child.name.clone()) else { return false };
        let log = self.log(&name);
        let Some(child) = self.children.get_mut(n) else { return false };
        match log.and_then(|log| child.spawn(log)) {
            Ok(()) => true,
            Err(error) => {
                output::note(&format!("{name} could not be started again: {error:#}"));
                false
            }
        }
    }

    /// Stops agents, then replicas; kills what does not stop in time.
    pub(crate) async fn stop(&mut self) {
        self.children.reverse();
        let deadline = Instant::now() + STOP_GRACE;
        let is_replica = |child: &Child| child.name.starts_with("replica-");
        for replicas in [false, true] {
            for child in self.children.iter().filter(|child| is_replica(child) == replicas) {
                if let Some(pid) = child.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
            for child in self.children.iter_mut().filter(|child| is_replica(child) == replicas) {
                let Some(process) = child.process.as_mut() else { continue };
                if tokio::time::timeout_at(deadline, process.wait()).await.is_err() {
                    output::note(&format!("{} did not stop in time and is killed", child.name));
                    let _ = process.kill().await;
                }
                child.process = None;
            }
        }
        if let Err(error) = self.write_manifest() {
            output::note(&format!("dev.json could not be brought up to date: {error:#}"));
        }
    }
}
