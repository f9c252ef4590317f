//! [`Selector`]: a label selector of a controller or a Service, ready for matching.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fields;

/// Labels of one object.
pub type Labels = BTreeMap<String, String>;

/// Requirements that must all hold. Without requirements it matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Equals(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Selector {
    /// A Service's or ReplicationController's selector: a plain map. `None` when it is absent or empty, which selects
    /// nothing there.
    #[must_use]
    pub fn of_map(map: Option<&Value>) -> Option<Self> {
        let map = map?.as_object().filter(|map| !map.is_empty())?;
        Some(Self { requirements: equalities(map) })
    }

    /// A `LabelSelector` object. `None` when it is absent; an unknown operator matches nothing and so gives `None` too.
    #[must_use]
    pub fn of_label_selector(selector: Option<&Value>) -> Option<Self> {
        let selector = selector.filter(|selector| selector.is_object())?;
        let mut requirements = fields::map(selector, "/matchLabels").map(equalities).unwrap_or_default();
        for expression in fields::list(selector, "/matchExpressions") {
            let key = fields::text(expression, "/key").to_owned();
            let values = || {
                let values = fields::list(expression, "/values").iter();
                values.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
            };
            requirements.push(match fields::text(expression, "/operator") {
                "In" => Requirement::In(key, values()),
                "NotIn" => Requirement::NotIn(key, values()),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                _ => return None,
            });
        }
        Some(Self { requirements })
    }

    /// Whether objects with `labels` are selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::Equals(key, value) => labels.get(key) == Some(value),
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => !labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
        })
    }

    /// One label every selected object has, by which an index finds candidates.
    #[must_use]
    pub fn indexed(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|requirement| match requirement {
            Requirement::Equals(key, value) => Some((key.as_str(), value.as_str())),
            _ => None,
        })
    }
}

fn equalities(map: &serde_json::Map<String, Value>) -> Vec<Requirement> {
    map.iter().filter_map(|(key, value)| Some(Requirement::Equals(key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every operator against a matching and a failing set of labels.
    #[test]
    fn operators_decide() {
        let labels: Labels = [("app".into(), "web".into()), ("tier".into(), "front".into())].into();
        for (selector, expected) in [
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["web"]}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), false),
            (json!({}), true),
        ] {
            let parsed = Selector::of_label_selector(Some(&selector)).expect("a selector");
            assert_eq!(parsed.matches(&labels), expected, "{selector}");
        }
        assert_eq!(Selector::of_map(Some(&json!({}))), None, "an empty Service selector selects nothing");
    }
}
