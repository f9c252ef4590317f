//! `quiltd status`: one sentence on the health of the control plane, then its replicas.

use anyhow::Context;
use reqwest::Method;
use serde_json::Value;

use crate::cli::client::Connection;
use crate::cli::form::Form;
use crate::output;

/// Show whether the control plane is healthy, who leads, and how far each replica has come.
///
/// The picture is read from raft itself: on the leader if it is among the addresses, else on the first replica that
/// answers, which knows less of the others.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd status --ca ca.crt --token-file admin.key\n  quiltd status -o json --ca ca.crt --token-file admin.key\n  quiltd status -o jsonpath={.leader} --ca ca.crt --token-file admin.key"
)]
pub(crate) struct Status {
    #[arg(short, long, default_value = "table", value_parser = Form::parse, value_name = "FORM", help = Form::HELP)]
    output: Form,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        self.output.show(&self.document()?, table)
    }

    /// The leader's picture if one of the given replicas leads, for only the leader knows how far the others have come;
    /// else the first one that is given.
    fn document(&self) -> anyhow::Result<Value> {
        let mut first = None;
        for connection in self.connection.each() {
            let answer = connection.ask(&Method::GET, "/api/admin/status", None);
            if let Ok(status) = &answer
                && status["leader"] == status["id"]
            {
                return answer;
            }
            let better = matches!((&first, &answer), (None, _) | (Some(Err(_)), Ok(_)));
            if better {
                first = Some(answer);
            }
        }
        first.context("no --address was given")?
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
        let role = match replica["voter"].as_bool() {
            Some(true) if replica["id"] == status["leader"] => "leader",
            Some(true) => "voter",
            _ => "learner",
        };
        let mut row = vec![text(&replica["id"]), role.to_owned()];
        let columns = ["address", "matched_index", "lag_entries", "last_contact_ms"];
        row.extend(columns.iter().map(|column| text(&replica[*column])));
        row
    });
    output::table(
        &["ID", "ROLE", "ADDRESS", "MATCHED", "TRAILS LEADER BY", "LAST CONTACT (ms)"],
        &rows.collect::<Vec<Vec<String>>>(),
    );
}
