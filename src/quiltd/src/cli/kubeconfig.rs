//! `quiltd kubeconfig`: a file kubectl can use.

use anyhow::Context;

use crate::cli::client::Connection;
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
        let ca = self.connection.ca.as_ref().context("--ca FILE is needed")?;
        let token = self.connection.token_file.as_ref().context("--token-file FILE is needed")?;
        let server = self.connection.address.first().context("--address URL is needed")?;
        let server = match &self.cluster {
            Some(cluster) => format!("{}/clusters/{cluster}", server.trim_end_matches('/')),
            None => server.clone(),
        };
        output::line(render(&server, &files::read(ca)?, files::read(token)?.trim()).trim_end());
        Ok(())
    }
}

/// A kubeconfig of one cluster, one user, one context.
pub(crate) fn render(server: &str, ca_pem: &str, token: &str) -> String {
    use base64::Engine;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: quilt\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {ca}\nusers:\n- name: admin\n  user:\n    token: {token}\ncontexts:\n- name: quilt\n  \
         context:\n    cluster: quilt\n    user: admin\ncurrent-context: quilt\n"
    )
}
