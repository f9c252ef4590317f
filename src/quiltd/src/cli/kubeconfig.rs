//! `quiltd kubeconfig`: a file kubectl can use.

use std::path::Path;

use anyhow::Context;

use crate::cli::client::Connection;
use crate::exit::Failure;
use crate::output;
use crate::tls::files;

/// Print a kubeconfig for the control plane or for one Quilt cluster.
///
/// The credential is the content of --token-file: the admin key, or a tenant's API key.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd kubeconfig --ca ca.crt --token-file admin.key > admin.kubeconfig\n  quiltd kubeconfig --cluster 5f5c6f0e-2f5b-4b61-8d39-a7d2d0f3a111 --ca ca.crt --token-file api.key"
)]
pub(crate) struct Kubeconfig {
    /// Quilt cluster whose virtual API is meant; without it the built-in cluster at the root path.
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Kubeconfig {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let Connection { ca, token_file, .. } = &self.connection;
        let ca = needed(ca.as_deref(), "--ca FILE, or QUILTD_CA")?;
        let token = needed(token_file.as_deref(), "--token-file FILE, or QUILTD_TOKEN_FILE")?;
        let server = self.connection.address.first().context("--address URL is needed")?;
        let server = match &self.cluster {
            Some(cluster) => format!("{server}/clusters/{cluster}"),
            None => server.clone(),
        };
        let contexts = [("quilt".to_owned(), server)];
        output::line(render(&contexts, &files::read(ca)?, files::read(token)?.trim()).trim_end());
        Ok(())
    }
}

/// Both stand in the file, so neither can be left out here.
fn needed<'a>(file: Option<&'a Path>, flag: &str) -> anyhow::Result<&'a Path> {
    Ok(file.ok_or_else(|| Failure::Usage(format!("{flag} is needed: it becomes part of the kubeconfig")))?)
}

/// A kubeconfig of one user and a context for each named server; the first one is current.
pub(crate) fn render(contexts: &[(String, String)], ca_pem: &str, token: &str) -> String {
    use base64::Engine;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    let current = contexts.first().map_or("", |(name, _)| name);
    let clusters: String = contexts
        .iter()
        .map(|(name, server)| {
            format!("- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n")
        })
        .collect();
    let entries: String = contexts
        .iter()
        .map(|(name, _)| format!("- name: {name}\n  context:\n    cluster: {name}\n    user: admin\n"))
        .collect();
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n{clusters}users:\n- name: admin\n  user:\n    token: {token}\n\
         contexts:\n{entries}current-context: {current}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::render;

    /// Every named server has its context, and the first is the one used without `--context`.
    #[test]
    fn contexts_are_named() {
        let servers = ["quilt", "replica-2"].map(|name| (name.to_owned(), format!("https://{name}:6443")));
        let text = render(&servers, "pem", "qa_x");
        assert!(text.contains("- name: replica-2\n  cluster:\n    server: https://replica-2:6443\n"), "{text}");
        assert!(text.contains("- name: replica-2\n  context:\n    cluster: replica-2\n    user: admin\n"), "{text}");
        assert!(text.ends_with("current-context: quilt\n"), "{text}");
    }
}
