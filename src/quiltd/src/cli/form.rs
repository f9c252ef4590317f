//! [`Form`]: how an answer is shown, the same words with every command that has `-o`.

use serde_json::Value;

use crate::cli::jsonpath::JsonPath;
use crate::exit::Failure;
use crate::output;

/// What `-o` says.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// Sentences and columns.
    Table,
    /// The answer as it came.
    Json,
    /// One value of it.
    JsonPath(JsonPath),
}

impl Form {
    /// For help: what may be said.
    pub(crate) const HELP: &str = "Output form: table, json, or jsonpath={.FIELD} for one value of the JSON form";

    /// Reads what was said.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "table" => Ok(Self::Table),
            None if text == "json" => Ok(Self::Json),
            Some(("jsonpath", path)) => path.parse().map(Self::JsonPath),
            _ => Err("expected table, json or jsonpath={.FIELD}".into()),
        }
    }

    /// Shows an answer; `table` is asked only when columns are wanted.
    pub(crate) fn show(&self, answer: &Value, table: impl FnOnce(&Value)) -> anyhow::Result<()> {
        match self {
            Self::Table => table(answer),
            Self::Json => output::line(&serde_json::to_string_pretty(answer)?),
            Self::JsonPath(path) => {
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
