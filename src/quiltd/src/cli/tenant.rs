//! `quiltd tenant`: owners of clusters and their API keys.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::Connection;
use crate::cli::confirm::Confirm;
use crate::cli::form::Output;
use crate::exit::{Failure, hinted};
use crate::output;

/// Create, list, disable and delete tenants, and make API keys for them.
///
/// A tenant owns Quilt clusters; its API key opens them on the Quilt and the Kubernetes routes. Keys are shown once.
/// A tenant is named by its name or by its id.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd tenant create acme --ca ca.crt --token-file admin.key\n  quiltd tenant list --ca ca.crt --token-file admin.key\n  quiltd tenant create acme -o jsonpath={.api_key} --ca ca.crt --token-file admin.key > acme.key"
)]
pub(crate) struct Tenant {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a tenant and its first API key.
    #[command(
        after_help = "Examples:\n  quiltd tenant create acme\n  quiltd tenant create acme -o jsonpath={.api_key} > acme.key"
    )]
    Create {
        /// The tenant's name, 1 to 128 printable characters; unique in the control plane.
        name: String,
    },
    /// List tenants.
    #[command(after_help = "Examples:\n  quiltd tenant list\n  quiltd tenant list -o json")]
    List,
    /// Make one more API key for a tenant. The opposite is revoke-key.
    #[command(
        after_help = "Examples:\n  quiltd tenant key acme\n  quiltd tenant key acme -o jsonpath={.api_key} > acme.key"
    )]
    Key {
        /// The tenant's name or id.
        tenant: String,
    },
    /// Revoke an API key, effective at once on every replica.
    #[command(after_help = "Examples:\n  quiltd tenant revoke-key acme 0d9f7a1e-6f0c-4f0e-9c53-3a7f1c0f5a11")]
    RevokeKey {
        /// The tenant's name or id.
        tenant: String,
        /// The key's id, as given when it was made.
        key: String,
    },
    /// Refuse all keys of a tenant until it is enabled again. What runs goes on.
    #[command(after_help = "Examples:\n  quiltd tenant disable acme")]
    Disable {
        /// The tenant's name or id.
        tenant: String,
    },
    /// Take back a disable.
    #[command(after_help = "Examples:\n  quiltd tenant enable acme")]
    Enable {
        /// The tenant's name or id.
        tenant: String,
    },
    /// Delete a tenant with its keys and its clusters and everything in them. Asks once.
    #[command(after_help = "Examples:\n  quiltd tenant delete acme\n  quiltd tenant delete acme --yes")]
    Delete {
        /// The tenant's name or id.
        tenant: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

impl Tenant {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match &self.verb {
            Verb::Create { name } => {
                let made = self.ask(&Method::POST, TENANTS, Some(&json!({ "name": name })))?;
                self.output.show(&made, |made| {
                    output::table(
                        &["TENANT", "NAME", "API KEY (shown once)"],
                        &[vec![text(&made["tenant_id"]), text(&made["name"]), text(&made["api_key"])]],
                    );
                })
            }
            Verb::List => {
                let list = self.ask(&Method::GET, TENANTS, None)?;
                self.output.show(&list, |list| {
                    let rows = list["tenants"].as_array().into_iter().flatten().map(|tenant| {
                        let disabled = if tenant["disabled"].as_bool() == Some(true) { "disabled" } else { "active" };
                        vec![text(&tenant["tenant_id"]), text(&tenant["name"]), disabled.to_owned()]
                    });
                    output::table(&["TENANT", "NAME", "STATE"], &rows.collect::<Vec<_>>());
                })
            }
            Verb::Key { tenant } => {
                let path = format!("{TENANTS}/{}/keys", self.id(tenant)?);
                let made = self.ask(&Method::POST, &path, Some(&json!({})))?;
                self.output.show(&made, |made| {
                    let row = vec![text(&made["key_id"]), text(&made["api_key"])];
                    output::table(&["KEY", "API KEY (shown once)"], &[row]);
                })
            }
            Verb::RevokeKey { tenant, key } => {
                self.ask(&Method::DELETE, &format!("{TENANTS}/{}/keys/{key}", self.id(tenant)?), None)?;
                output::note(&format!("key {key} is revoked"));
                Ok(())
            }
            Verb::Disable { tenant } => {
                self.change(tenant, &json!({ "disabled": true }), "is disabled: its keys are refused")
            }
            Verb::Enable { tenant } => {
                self.change(tenant, &json!({ "disabled": false }), "is enabled: its keys are taken again")
            }
            Verb::Delete { tenant, confirm } => {
                let id = self.id(tenant)?;
                confirm.ask(&format!("delete tenant '{tenant}', its keys, its clusters and everything in them?"))?;
                self.ask(&Method::DELETE, &format!("{TENANTS}/{id}"), None)?;
                output::note(&format!("tenant '{tenant}' is deleted"));
                Ok(())
            }
        }
    }

    fn ask(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.connection.ask(method, path, body)
    }

    fn change(&self, tenant: &str, change: &Value, told: &str) -> anyhow::Result<()> {
        self.ask(&Method::PATCH, &format!("{TENANTS}/{}", self.id(tenant)?), Some(change))?;
        output::note(&format!("tenant '{tenant}' {told}"));
        Ok(())
    }

    /// The id of a tenant that was given by name or by id.
    fn id(&self, tenant: &str) -> anyhow::Result<String> {
        let list = self.ask(&Method::GET, TENANTS, None)?;
        find(&list, tenant).ok_or_else(|| {
            hinted(Failure::NotFound(format!("tenant '{tenant}' not found")), "quiltd tenant list shows them all")
        })
    }
}

const TENANTS: &str = "/api/admin/tenants";

/// An id is meant before a name, so that no tenant can take another's place by its name.
fn find(list: &Value, tenant: &str) -> Option<String> {
    let by = |field: &str| list["tenants"].as_array()?.iter().find(|one| one[field] == tenant);
    by("tenant_id").or_else(|| by("name"))?["tenant_id"].as_str().map(str::to_owned)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::find;

    /// Names and ids both name a tenant, and one that is called like another's id does not stand for it.
    #[test]
    fn tenants_are_found() {
        let list = json!({"tenants": [{"tenant_id": "t-1", "name": "t-2"}, {"tenant_id": "t-2", "name": "acme"}]});
        assert_eq!(find(&list, "acme").as_deref(), Some("t-2"));
        assert_eq!(find(&list, "t-2").as_deref(), Some("t-2"));
        assert_eq!(find(&list, "t-1").as_deref(), Some("t-1"));
        assert_eq!(find(&list, "other"), None);
    }
}
