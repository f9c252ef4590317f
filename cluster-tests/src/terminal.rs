//! [`Terminal`]: the command line as an operator and a script use it, with nobody at the keyboard.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::binary;
use crate::cluster::Cluster;

/// `quiltd` towards one replica of a control plane. Its lines are split at spaces.
#[derive(Clone, Debug)]
pub struct Terminal {
    address: String,
    ca: String,
    key: String,
}

impl Terminal {
    /// The admin's.
    ///
    /// # Errors
    /// When there is no such replica.
    pub fn of(cluster: &Cluster, replica: u16) -> Result<Self> {
        let ca = cluster.manifest().ca.clone();
        let key = Path::new(&ca).with_file_name("admin.key").display().to_string();
        Ok(Self { address: cluster.replica(replica)?.api.clone(), ca, key })
    }

    /// The same with the key in another file.
    #[must_use]
    pub fn with_key(&self, file: &Path) -> Self {
        Self { key: file.display().to_string(), ..self.clone() }
    }

    async fn run(&self, line: &str) -> Result<Output> {
        let mut command = tokio::process::Command::new(binary::quiltd()?);
        command.args(line.split_whitespace()).stdin(Stdio::null());
        command.env("QUILTD_ADDRESS", &self.address).env("QUILTD_CA", &self.ca).env("QUILTD_TOKEN_FILE", &self.key);
        command.output().await.context("quiltd cannot be started")
    }

    /// What it printed.
    ///
    /// # Errors
    /// When it did not succeed.
    pub async fn done(&self, line: &str) -> Result<String> {
        let output = self.run(line).await?;
        ensure!(output.status.success(), "quiltd {line}: {output:?}");
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// What it said when it ended with this code and answered nothing.
    ///
    /// # Errors
    /// When it ended otherwise.
    pub async fn failed(&self, line: &str, code: i32) -> Result<String> {
        let output = self.run(line).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(code), "quiltd {line}: {} instead of {code}\n{said}", output.status);
        ensure!(output.stdout.is_empty(), "quiltd {line} answers: {output:?}");
        Ok(said)
    }

    /// That it fails so, says this first, and something to do then.
    ///
    /// # Errors
    /// When it did otherwise.
    pub async fn refused(&self, line: &str, code: i32, error: &str, hint: &str) -> Result<()> {
        let said = self.failed(line, code).await?;
        let told = said.split_once("error: ").map_or("", |(_, told)| told);
        ensure!(told.starts_with(error), "quiltd {line} says:\n{said}");
        ensure!(hint.is_empty() || told.contains(&format!("hint: {hint}")), "quiltd {line} hints:\n{said}");
        Ok(())
    }
}
