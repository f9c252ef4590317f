//! `quiltd status`: one sentence on the health of the control plane, then its replicas.

use reqwest::Method;
use serde_json::Value;

use crate::cli::client::Connection;
use crate::cli::jsonpath::JsonPath;
use crate::exit::Failure;
use crate::output;

/// Show whether the control plane is healthy, who leads, and how far each replica has come.
///
/// The picture is read from raft itself, on the replica that answers.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd status --ca ca.crt --token-file admin.key\n  quiltd status -o json --ca ca.crt --token-file admin.key\n  quiltd status -o jsonpath={.leader} --ca ca.crt --token-file admin.key"
)]
pub(crate) struct Status {
    /// Output form: `table`, `json`, or `jsonpath={.FIELD}` for one value of the JSON form.
    #[arg(short, long, default_value = "table", value_parser = form, value_name = "FORM")]
    output: Form,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Debug)]
enum Form {
    /// Sentences and columns.
    Table,
    /// The status document.
    Json,
    /// One value of it.
    JsonPath(JsonPath),
}

fn form(text: &str) -> Result<Form, String> {
    match text.split_once('=') {
        None if text == "table" => Ok(Form::Table),
        None if text == "json" => Ok(Form::Json),
        Some(("jsonpath", path)) => path.parse().map(Form::JsonPath),
        _ => Err("expected table, json or jsonpath={.FIELD}".into()),
    }
}

impl Status {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let status = self.connection.ask(&Method::GET, "/api/admin/status", None)?;
        match &self.output {
            Form::Json => output::line(&serde_json::to_string_pretty(&status)?),
            Form::Table => table(&status),
            Form::JsonPath(path) => {
                let value =
                    path.of(&status).ok_or_else(|| Failure::NotFound(format!("the status has no {path} now")))?;
                output::line(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            }
        }
        Ok(())
    }
}

fn table(status: &Value) {
    output::line(status["summary"].as_str().unwrap_or("status without a summary"));
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let rows = status["members"].as_array().into_iter().flatten().map(|replica| {
        ["id", "voter", "address", "matched_index", "lag_entries", "last_contact_ms"]
            .iter()
            .map(|column| text(&replica[*column]))
            .collect()
    });
    output::table(
        &["ID", "VOTER", "ADDRESS", "MATCHED", "TRAILS LEADER BY", "LAST CONTACT (ms)"],
        &rows.collect::<Vec<Vec<String>>>(),
    );
}
