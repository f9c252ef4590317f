//! kubectl as a user runs it, against one replica.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::binary;
use crate::cluster::{Cluster, Replica};

const TIMEOUT: Duration = Duration::from_secs(180);

/// kubectl with one cluster's kubeconfig and its own, empty home: nothing of the person's who runs the test.
#[derive(Debug, Clone)]
pub struct Kubectl {
    path: PathBuf,
    kubeconfig: String,
    home: PathBuf,
    server: Option<String>,
}

impl Kubectl {
    /// kubectl with the cluster's own kubeconfig.
    ///
    /// # Errors
    /// When there is no kubectl that is new enough.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            path: binary::kubectl()?,
            kubeconfig: cluster.manifest().kubeconfig.clone(),
            home: cluster.directory().join("kubectl-home"),
            server: None,
        })
    }

    /// The same, through this replica.
    #[must_use]
    pub fn through(&self, replica: &Replica) -> Self {
        Self { server: Some(replica.api.clone()), ..self.clone() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments);
        if let Some(server) = &self.server {
            command.arg("--server").arg(server);
        }
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl; its standard output.
    ///
    /// # Errors
    /// With everything it said, when it fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "").await
    }

    /// Runs kubectl with text on its standard input.
    ///
    /// # Errors
    /// With everything it said, when it fails.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let shown = format!("kubectl {}", arguments.join(" "));
        let mut child = self.command(arguments).spawn().with_context(|| shown.clone())?;
        let mut stdin = child.stdin.take().context("standard input is piped")?;
        stdin.write_all(input.as_bytes()).await.with_context(|| shown.clone())?;
        drop(stdin);
        let Ok(output) = tokio::time::timeout(TIMEOUT, child.wait_with_output()).await else {
            bail!("{shown}: no end within {TIMEOUT:?}");
        };
        let output = output.with_context(|| shown.clone())?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{shown}: {}\n{out}{err}", output.status);
        Ok(out.into_owned())
    }

    /// Runs kubectl with `--output json`.
    ///
    /// # Errors
    /// When it fails or does not answer JSON.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [arguments, &["--output", "json"]].concat();
        let text = self.run(&arguments).await?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {} answered no JSON", arguments.join(" ")))
    }
}
