//! [`Output`]: how an answer is shown, the same words with every command that has `-o`.

use serde_json::Value;

use crate::cli::jsonpath::JsonPath;
use crate::exit::Failure;
use crate::output;

/// The flag `-o`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Output {
    /// Output form: table, json, or jsonpath={.FIELD} for one value of the JSON form
    #[arg(short, long, global = true, default_value = "table", value_parser = Form::parse, value_name = "FORM")]
    output: Form,
}

/// What it says.
#[derive(Clone, Debug)]
enum Form {
    /// Sentences and columns.
    Table,
    /// The answer as it came.
    Json,
    /// One value of it.
    JsonPath(JsonPath),
}

impl Form {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "table" => Ok(Self::Table),
            None if text == "json" => Ok(Self::Json),
            Some(("jsonpath", path)) => path.parse().map(Self::JsonPath),
            _ => Err("expected table, json or jsonpath={.FIELD}".into()),
        }
    }
}

impl Output {
    /// Shows an answer; `table` is asked only when columns are wanted.
    pub(crate) fn show(&self, answer: &Value, table: impl FnOnce(&Value)) -> anyhow::Result<()> {
        match &self.output {
            Form::Table => table(answer),
            Form::Json => output::line(&serde_json::to_string_pretty(answer)?),
            Form::JsonPath(path) => {
                let value =
                    path.of(answer).ok_or_else(|| Failure::NotFound(format!("the answer has no {path} now")))?;
                output::line(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Form;

    /// Only forms that exist are taken.
    #[test]
    fn forms_are_parsed() {
        assert!(matches!(Form::parse("json"), Ok(Form::Json)));
        assert!(matches!(Form::parse("jsonpath={.leader}"), Ok(Form::JsonPath(_))));
        for wrong in ["yaml", "jsonpath", "jsonpath=leader", "json=x", "table="] {
            assert!(Form::parse(wrong).is_err(), "{wrong}");
        }
    }
}
