//! [`JsonPath`]: names one value of an answer, as `-o jsonpath={.leader}` does with kubectl. Of kubectl's language only
//! fields and indexes are here: they are what a script needs to take one value out.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// A path such as `{.members[0].id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
}

impl JsonPath {
    /// The value there; nothing when there is none or it is null.
    pub(crate) fn of<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        let mut value = document;
        for step in &self.0 {
            value = match step {
                Step::Field(name) => value.get(name)?,
                Step::Index(at) => value.get(at)?,
            };
        }
        (!value.is_null()).then_some(value)
    }
}

impl FromStr for JsonPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not of the form {{.FIELD}}, {{.FIELD.FIELD}} or {{.FIELD[0].FIELD}}");
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or_else(wrong)?;
        let mut steps = Vec::new();
        for part in inner.strip_prefix('.').ok_or_else(wrong)?.split('.') {
            let mut pieces = part.split('[');
            let name = pieces.next().unwrap_or_default();
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(wrong());
            }
            steps.push(Step::Field(name.to_owned()));
            for index in pieces {
                let number = index.strip_suffix(']').ok_or_else(wrong)?;
                steps.push(Step::Index(number.parse().map_err(|_| wrong())?));
            }
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            match step {
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(at) => write!(f, "[{at}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Values are found by field and index; what is absent or null is not there.
    #[test]
    fn values_are_found() {
        let document = json!({"leader": 2, "none": null, "members": [{"id": 1}, {"id": 7, "voter": true}]});
        let at = |path: &str| path.parse::<JsonPath>().expect("a path").of(&document).cloned();
        assert_eq!(at("{.leader}"), Some(json!(2)));
        assert_eq!(at("{.members[1].id}"), Some(json!(7)));
        assert_eq!(at("{.members[2].id}"), None);
        assert_eq!(at("{.none}"), None);
        assert_eq!(at("{.leader.id}"), None);
    }

    /// What is not understood is refused rather than read as something else; what is understood is shown as written.
    #[test]
    fn paths_are_parsed() {
        for wrong in ["", "leader", ".leader", "{leader}", "{.}", "{.a[x]}", "{.a[1}", "{..a}", "{.items[*].id}"] {
            assert!(wrong.parse::<JsonPath>().is_err(), "{wrong}");
        }
        assert_eq!("{.a.b[3].c}".parse::<JsonPath>().map(|path| path.to_string()), Ok(".a.b[3].c".into()));
    }
}
