//! `quiltd status`: one sentence on the health of the control plane, then its replicas.

use reqwest::Method;
use serde_json::Value;

use crate::cli::client::Connection;
use crate::cli::form::Output;
use crate::output;

/// Show whether the control plane is healthy, who leads, and how far each replica has come.
///
/// The picture is read from raft itself, on the leader; while there is none, on the replica that answers, which knows less
/// of the others.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd status --ca ca.crt --token-file admin.key\n  quiltd status -o json --ca ca.crt --token-file admin.key\n  quiltd status -o jsonpath={.leader} --ca ca.crt --token-file admin.key"
)]
pub(crate) struct Status {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let status = self.connection.ask(&Method::GET, "/api/admin/status?from=leader", None)?;
        self.output.show(&status, table)
    }
}

fn table(status: &Value) {
    output::line(status["summary"].as_str().unwrap_or("status without a summary"));
    for alarm in status["alarms"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::line(&format!("alarm: {alarm}"));
    }
    peers(status);
    if let Some(line) = history(status) {
        output::line(&line);
    }
    if let Some(line) = scanned(&status["scanned"]) {
        output::line(&line);
    }
}

/// The floor in force.
fn history(status: &Value) -> Option<String> {
    let (floor, newest) = (status["history"]["floor"].as_u64()?, status["revision"].as_u64()?);
    Some(format!("history of all clusters: from revision {floor} on, up to {newest}"))
}

/// The last whole scan of the state of the replica that answers.
fn scanned(scanned: &Value) -> Option<String> {
    let (rows, index) = (scanned["rows"].as_u64()?, scanned["applied_index"].as_u64()?);
    let found = if scanned["fits"] == Value::Bool(true) { "as they were written" } else { "not what was written" };
    let seconds = scanned["took_ms"].as_u64()? / 1_000;
    Some(format!("last whole scan of the state: {rows} rows, {found}, at log entry {index}, in {seconds} s"))
}

/// One row for each replica.
pub(crate) fn peers(status: &Value) {
    let rows = status["members"].as_array().into_iter().flatten().map(|replica| row(status, replica));
    output::table(
        &[
            "ID",
            "ADDRESS",
            "ROLE",
            "TERM",
            "APPLIED",
            "TRAILS LEADER BY",
            "LAST CONTACT",
            "LOG SYNC",
            "VERSION",
            "DISK FREE",
        ],
        &rows.collect::<Vec<_>>(),
    );
}

fn row(status: &Value, replica: &Value) -> Vec<String> {
    let text = |value: &Value, unit: &str| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => format!("{other}{unit}"),
    };
    let role = match (replica["id"] == status["leader"], replica["voter"].as_bool()) {
        (true, _) => "leader",
        (false, Some(true)) => "voter",
        (false, _) => "learner",
    };
    vec![
        text(&replica["id"], ""),
        text(&replica["address"], ""),
        role.to_owned(),
        text(&replica["term"], ""),
        text(&replica["applied_index"], ""),
        text(&replica["lag_entries"], " entries"),
        text(&replica["last_contact_ms"], " ms"),
        log_sync(replica),
        text(&replica["about"]["version"], ""),
        text(&replica["about"]["disk_free_percent"], " %"),
    ]
}

/// What a sync of the replica's log takes, and whether the replica holds its disk to be slow.
fn log_sync(replica: &Value) -> String {
    let Some(us) = replica["log_sync_us"].as_u64() else { return "-".to_owned() };
    let slow = if replica["disk_is_slow"] == Value::Bool(true) { ", slow" } else { "" };
    format!("{}.{} ms{slow}", us / 1_000, us % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{history, row};

    /// The floor in force is a line of its own; a control plane that does not tell it has none.
    #[test]
    fn the_floor_is_told() {
        let status = json!({"revision": 40, "history": {"floor": 12, "floors": [], "floors_left_out": 0}});
        assert_eq!(history(&status).as_deref(), Some("history of all clusters: from revision 12 on, up to 40"));
        assert_eq!(history(&json!({"revision": 40})), None);
    }

    /// Who leads is said once, and what is not known is a dash.
    #[test]
    fn a_row_says_what_is_known() {
        let status = json!({"leader": 2});
        let leader = json!({"id": 2, "address": "cp-2:7443", "voter": true, "term": 4, "applied_index": 9, "lag_entries": 0,
            "last_contact_ms": 0, "log_sync_us": 61_250, "disk_is_slow": true, "about": {"version": "0.1.0", "disk_free_percent": 71}});
        assert_eq!(
            row(&status, &leader),
            ["2", "cp-2:7443", "leader", "4", "9", "0 entries", "0 ms", "61.2 ms, slow", "0.1.0", "71 %"]
        );
        let learner = json!({"id": 3, "address": "cp-3:7443", "voter": false, "about": null});
        assert_eq!(row(&status, &learner), ["3", "cp-3:7443", "learner", "-", "-", "-", "-", "-", "-", "-"]);
    }
}
