//! `quiltd token`: replica tokens, by which new replicas join.

use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::{Connection, duration};
use crate::cli::form::Output;
use crate::output;

/// Create, list and revoke replica tokens.
///
/// A replica token lets new replicas in: quiltd server --join URL --token-file F. It carries the hash of the control
/// plane's CA, so that the new host knows whom it talks to. It is shown once; hand it over as a file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd token create --ca ca.crt --token-file admin.key > replica.token\n  quiltd token create --uses 2 --ttl 10m --ca ca.crt --token-file admin.key > replica.token\n  quiltd token revoke 7d1f... --ca ca.crt --token-file admin.key"
)]
pub(crate) struct Token {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token and print its text. The opposite of revoke.
    #[command(
        after_help = "Examples:\n  quiltd token create --ca ca.crt --token-file admin.key > replica.token\n  quiltd token create --uses 2 --ttl 10m --ca ca.crt --token-file admin.key > replica.token"
    )]
    Create {
        /// How long it may be used, from 1m to a day.
        #[arg(long, default_value = "60m", value_parser = duration, value_name = "TIME")]
        ttl: Duration,
        /// How many replicas it lets in.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100), value_name = "N")]
        uses: u64,
        #[command(flatten)]
        output: Output,
    },
    /// List the tokens that still let somebody in.
    #[command(
        after_help = "Examples:\n  quiltd token list --ca ca.crt --token-file admin.key\n  quiltd token list -o json --ca ca.crt --token-file admin.key"
    )]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// End a token, effective at once on every replica. Replicas that joined by it stay.
    #[command(
        after_help = "Examples:\n  quiltd token revoke 7d1f0c5e-8f0a-4a8c-9d55-1f2f0b7c9a11 --ca ca.crt --token-file admin.key"
    )]
    Revoke {
        /// The token's id, as list shows it.
        id: String,
    },
}

impl Token {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let ask = |method, path: &str, body: Option<&Value>| self.connection.ask(&method, path, body);
        match &self.verb {
            Verb::Create { ttl, uses, output } => {
                let body = json!({ "ttl_secs": ttl.as_secs(), "max_uses": uses });
                let made = ask(Method::POST, "/api/admin/replica-tokens", Some(&body))?;
                // Only the text: it is meant to become a file.
                output.show(&made, |made| output::line(made["token"].as_str().unwrap_or_default()))
            }
            Verb::List { output } => {
                let list = ask(Method::GET, "/api/admin/replica-tokens", None)?;
                output.show(&list, |list| {
                    let rows = list["tokens"].as_array().into_iter().flatten().map(row);
                    output::table(&["TOKEN", "USES LEFT", "EXPIRES"], &rows.collect::<Vec<_>>());
                })
            }
            Verb::Revoke { id } => {
                ask(Method::DELETE, &format!("/api/admin/replica-tokens/{id}"), None)?;
                output::line(&format!("token {id} is revoked"));
                Ok(())
            }
        }
    }
}

fn row(token: &Value) -> Vec<String> {
    let expires = token["expires_at"].as_i64().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    vec![
        token["token_id"].as_str().unwrap_or_default().to_owned(),
        format!("{} of {}", token["uses_left"], token["max_uses"]),
        expires.map_or_else(|| "-".to_owned(), |at| at.to_string()),
    ]
}
