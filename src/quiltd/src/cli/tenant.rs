//! `quiltd tenant`: owners of clusters and their API keys.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::Connection;
use crate::cli::form::Form;
use crate::output;

/// Create and list tenants, and make API keys for them.
///
/// A tenant owns Quilt clusters; its API key opens them on the Quilt and the Kubernetes routes. Keys are shown once.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd tenant create acme --ca ca.crt --token-file admin.key\n  quiltd tenant list --ca ca.crt --token-file admin.key\n  quiltd tenant create acme -o jsonpath={.api_key} --ca ca.crt --token-file admin.key > acme.key"
)]
pub(crate) struct Tenant {
    #[command(subcommand)]
    verb: Verb,
    #[arg(short, long, global = true, default_value = "table", value_parser = Form::parse, value_name = "FORM", help = Form::HELP)]
    output: Form,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a tenant and its first API key.
    Create {
        /// The tenant's name, unique in the control plane.
        name: String,
    },
    /// List tenants.
    List,
    /// Make one more API key for a tenant.
    Key {
        /// The tenant's id.
        tenant: String,
    },
    /// Revoke an API key, effective at once on every replica.
    RevokeKey {
        /// The tenant's id.
        tenant: String,
        /// The key's id, as given when it was made.
        key: String,
    },
}

impl Tenant {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let ask = |method, path: &str, body: Option<&Value>| self.connection.ask(&method, path, body);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match &self.verb {
            Verb::Create { name } => {
                let made = ask(Method::POST, "/api/admin/tenants", Some(&json!({ "name": name })))?;
                self.output.show(&made, |made| {
                    output::table(
                        &["TENANT", "NAME", "API KEY (shown once)"],
                        &[vec![text(&made["tenant_id"]), text(&made["name"]), text(&made["api_key"])]],
                    );
                })?;
            }
            Verb::List => {
                let list = ask(Method::GET, "/api/admin/tenants", None)?;
                self.output.show(&list, |list| {
                    let rows = list["tenants"].as_array().into_iter().flatten().map(|tenant| {
                        let disabled = if tenant["disabled"].as_bool() == Some(true) { "disabled" } else { "active" };
                        vec![text(&tenant["tenant_id"]), text(&tenant["name"]), disabled.to_owned()]
                    });
                    output::table(&["TENANT", "NAME", "STATE"], &rows.collect::<Vec<_>>());
                })?;
            }
            Verb::Key { tenant } => {
                let made = ask(Method::POST, &format!("/api/admin/tenants/{tenant}/keys"), Some(&json!({})))?;
                self.output.show(&made, |made| {
                    let row = vec![text(&made["key_id"]), text(&made["api_key"])];
                    output::table(&["KEY", "API KEY (shown once)"], &[row]);
                })?;
            }
            Verb::RevokeKey { tenant, key } => {
                ask(Method::DELETE, &format!("/api/admin/tenants/{tenant}/keys/{key}"), None)?;
                output::note(&format!("key {key} is revoked"));
            }
        }
        Ok(())
    }
}
