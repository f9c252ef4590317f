//! [`LabelSelector`]: `app=web,tier in (a,b),!legacy`, read from text or from a `metav1.LabelSelector` object.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::names;
use crate::place;

/// Why a text or object is no selector. The text is Kubernetes' own.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct LabelSelectorError(String);

/// How a requirement judges a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// Present and one of the values.
    In(Vec<String>),
    /// Absent or none of the values.
    NotIn(Vec<String>),
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
    /// Present, an integer, and greater.
    GreaterThan(i64),
    /// Present, an integer, and less.
    LessThan(i64),
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// What must hold of it.
    pub test: Test,
}

/// All requirements must hold; none at all matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    #[must_use]
    pub const fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Matches no object: what an absent selector of a workload means.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Whether every object matches, so that labels need not be looked at.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// The requirements, ordered by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    fn sorted(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Reads the text of a query parameter.
    ///
    /// # Errors
    /// Bad syntax, and keys and values that cannot be labels; with the text for a 400.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        let tokens = lex(text).map_err(LabelSelectorError)?;
        Parser { tokens: &tokens }.selector().map(Self::sorted).map_err(LabelSelectorError)
    }

    /// Reads a `metav1.LabelSelector`: absent matches nothing, empty matches everything.
    ///
    /// # Errors
    /// Unknown operators, wrong numbers of values, keys and values that cannot be labels.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, LabelSelectorError> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in place::map(selector, &["matchLabels"]).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(requirement(key, Test::In(vec![value])).map_err(LabelSelectorError)?);
        }
        for expression in place::items(selector, &["matchExpressions"]) {
            let values = || texts(place::items(expression, &["values"]));
            let operator = place::text_or_empty(expression, &["operator"]);
            let test = match operator {
                "In" => Test::In(values()),
                "NotIn" => Test::NotIn(values()),
                "Exists" | "DoesNotExist" if !values().is_empty() => {
                    return Err(LabelSelectorError(format!(
                        "values: Invalid value: {:?}: values set must be empty for exists and does not exist",
                        values()
                    )));
                }
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::DoesNotExist,
                _ => return Err(LabelSelectorError(format!("\"{operator}\" is not a valid label selector operator"))),
            };
            let key = place::text_or_empty(expression, &["key"]);
            requirements.push(requirement(key, test).map_err(LabelSelectorError)?);
        }
        Ok(Self::sorted(requirements))
    }

    /// Reads a plain map of labels, as `spec.selector` of Services and ReplicationControllers is: absent or empty
    /// matches nothing.
    #[must_use]
    pub fn from_map(labels: Option<&Map<String, Value>>) -> Self {
        let requirements: Vec<Requirement> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                test: Test::In(vec![value.as_str().unwrap_or_default().to_owned()]),
            })
            .collect();
        if requirements.is_empty() { Self::nothing() } else { Self::sorted(requirements) }
    }

    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str))
    }

    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// One label and its value that every object meant has, by which an index finds candidates.
    #[must_use]
    pub fn pinned(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|requirement| match &requirement.test {
            Test::In(values) => match values.as_slice() {
                [value] => Some((requirement.key.as_str(), value.as_str())),
                _ => None,
            },
            _ => None,
        })
    }

    /// Whether `object` is meant, by its `metadata.labels`.
    #[must_use]
    pub fn matches_object(&self, object: &Value) -> bool {
        self.matches(place::map(object, &["metadata", "labels"]))
    }

    /// Whether an object is meant whose labels are looked up by `label`.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|requirement| {
                let value = label(&requirement.key);
                let number = || value.and_then(|value| value.parse::<i64>().ok());
                match &requirement.test {
                    Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
                    Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
                    Test::Exists => value.is_some(),
                    Test::DoesNotExist => value.is_none(),
                    Test::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
                    Test::LessThan(bound) => number().is_some_and(|number| number < *bound),
                }
            })
    }
}

impl fmt::Display for LabelSelector {
    /// The text form, ordered by key; reads back as the same selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Requirement { key, test }) in self.requirements.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::In(values) => match values.as_slice() {
                    [value] => write!(f, "{key}={value}"),
                    values => write!(f, "{key} in ({})", values.join(",")),
                },
                Test::NotIn(values) => match values.as_slice() {
                    [value] => write!(f, "{key}!={value}"),
                    values => write!(f, "{key} notin ({})", values.join(",")),
                },
                Test::Exists => f.write_str(key),
                Test::DoesNotExist => write!(f, "!{key}"),
                Test::GreaterThan(bound) => write!(f, "{key}>{bound}"),
                Test::LessThan(bound) => write!(f, "{key}<{bound}"),
            }?;
        }
        Ok(())
    }
}

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn checked_key(key: &str) -> Result<(), String> {
    let complaints = names::qualified_name(key);
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(format!("key: Invalid value: \"{key}\": {}", complaints.join("; ")))
    }
}

/// A requirement whose key and values can be labels; values are sorted and each stands once.
fn requirement(key: &str, mut test: Test) -> Result<Requirement, String> {
    checked_key(key)?;
    if let Test::In(values) | Test::NotIn(values) = &mut test {
        values.sort();
        values.dedup();
        if values.is_empty() {
            return Err("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned());
        }
        for (position, value) in values.iter().enumerate() {
            let complaints = names::label_value(value);
            if !complaints.is_empty() {
                return Err(format!(
                    "values[{position}][{key}]: Invalid value: \"{value}\": {}",
                    complaints.join("; ")
                ));
            }
        }
    }
    Ok(Requirement { key: key.to_owned(), test })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    const fn literal(self) -> &'a str {
        match self {
            Token::Word(text) | Token::Symbol(text) => text,
            Token::End => "",
        }
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn lex(text: &str) -> Result<Vec<Token<'_>>, String> {
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let word_end = rest.find(|c| is_space(c) || "=!(),><".contains(c)).unwrap_or(rest.len());
        let (token, tail) = if word_end > 0 {
            let (word, tail) = rest.split_at(word_end);
            (Token::Word(word), tail)
        } else {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(|| format!("found '{rest}', expected: keyword"))?;
            let (symbol, tail) = rest.split_at(symbol.len());
            (Token::Symbol(symbol), tail)
        };
        tokens.push(token);
        rest = tail.trim_start_matches(is_space);
    }
    Ok(tokens)
}

struct Parser<'t, 'a> {
    tokens: &'t [Token<'a>],
}

impl<'a> Parser<'_, 'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.first().copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.tokens = self.tokens.get(1..).unwrap_or_default();
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(requirements),
                Token::Word(_) | Token::Symbol("!") => {}
                Token::Symbol(other) => {
                    return Err(format!("found '{other}', expected: !, identifier, or 'end of string'"));
                }
            }
            let one = self.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
            requirements.push(one);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => {
                    let after = self.peek();
                    if !matches!(after, Token::Word(_) | Token::Symbol("!")) {
                        return Err(format!("found '{}', expected: identifier after ','", after.literal()));
                    }
                }
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.literal())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(format!("found '{}', expected: identifier", other.literal())),
        };
        checked_key(key)?;
        if negated {
            return requirement(key, Test::DoesNotExist);
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return requirement(key, Test::Exists);
        }
        let operator = self.next();
        let test = match operator {
            Token::Word("in") => Test::In(self.values()?),
            Token::Word("notin") => Test::NotIn(self.values()?),
            Token::Symbol("=" | "==") => Test::In(vec![self.value()?]),
            Token::Symbol("!=") => Test::NotIn(vec![self.value()?]),
            Token::Symbol(">") => Test::GreaterThan(self.number()?),
            Token::Symbol("<") => Test::LessThan(self.number()?),
            other => {
                return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.literal()));
            }
        };
        requirement(key, test)
    }

    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(value) => {
                self.next();
                Ok(value.to_owned())
            }
            Token::Symbol(other) => Err(format!("found '{other}', expected: identifier")),
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let value = self.value()?;
        value.parse().map_err(|_| {
            format!("values[0]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer")
        })
    }

    /// `(a,b)`; an empty place between commas or at the edges is the empty value, `()` is no value at all.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.literal())),
        }
        let mut values = Vec::new();
        if self.peek() == Token::Symbol(")") {
            self.next();
            return Ok(values);
        }
        loop {
            match self.peek() {
                Token::Word(value) => {
                    self.next();
                    values.push(value.to_owned());
                }
                Token::Symbol("," | ")") => values.push(String::new()),
                other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.literal())),
            }
            match self.next() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                other => return Err(format!("found '{}', expected: ',' or ')'", other.literal())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Each text against label sets that match and that do not.
    #[test]
    fn matching() {
        let table = [
            ("", vec![json!({}), json!({"a": "b"})], vec![]),
            ("a=b", vec![json!({"a": "b"})], vec![json!({}), json!({"a": "c"})]),
            ("a==b", vec![json!({"a": "b"})], vec![json!({"a": "c"})]),
            ("a!=b", vec![json!({}), json!({"a": "c"})], vec![json!({"a": "b"})]),
            ("a=", vec![json!({"a": ""})], vec![json!({}), json!({"a": "b"})]),
            ("a", vec![json!({"a": ""})], vec![json!({})]),
            ("!a", vec![json!({})], vec![json!({"a": ""})]),
            ("a in (b, c)", vec![json!({"a": "b"}), json!({"a": "c"})], vec![json!({}), json!({"a": "d"})]),
            ("a notin (b,c)", vec![json!({}), json!({"a": "d"})], vec![json!({"a": "b"})]),
            ("a in (,b)", vec![json!({"a": ""}), json!({"a": "b"})], vec![json!({"a": "c"})]),
            ("a>3", vec![json!({"a": "4"})], vec![json!({}), json!({"a": "3"}), json!({"a": "x"})]),
            ("a<3", vec![json!({"a": "-4"})], vec![json!({"a": "3"})]),
            ("in in (in),notin=notin", vec![json!({"in": "in", "notin": "notin"})], vec![json!({"in": "in"})]),
            (" x/y.z_1 = v ,\n!b ", vec![json!({"x/y.z_1": "v"})], vec![json!({"x/y.z_1": "v", "b": "1"})]),
        ];
        for (text, yes, no) in table {
            let selector = LabelSelector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            for labels in yes {
                assert!(selector.matches(labels.as_object()), "{text} must match {labels}");
            }
            for labels in no {
                assert!(!selector.matches(labels.as_object()), "{text} must not match {labels}");
            }
            assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector), "{text} survives its text form");
        }
    }

    /// What is wrong is said as Kubernetes says it.
    #[test]
    fn refusals() {
        let table = [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a=b,,c", "found ',', expected: identifier after ','"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set \
                 can't be empty",
            ),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value \
                 must be an integer",
            ),
        ];
        for (text, message) in table {
            let error = LabelSelector::parse(text).expect_err(text);
            assert_eq!(error.to_string(), message, "{text}");
        }
        for text in ["-a=b", "a=-b", "a/b/c", "a=b c", "(a)", "a===b", "a=(b)"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    /// A selector object: absent is nothing, empty is everything, expressions are combined.
    #[test]
    fn objects() {
        assert!(!LabelSelector::from_object(None).expect("valid").matches(None));
        assert!(LabelSelector::from_object(Some(&json!({}))).expect("valid").matches(None));
        let selector = LabelSelector::from_object(Some(&json!({"matchLabels": {"b": "1", "a": "2"},
            "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["y", "x"]},
                                 {"key": "d", "operator": "DoesNotExist"}]})))
        .expect("valid");
        assert_eq!(selector.to_string(), "a=2,b=1,c notin (x,y),!d");
        assert!(selector.matches_object(&json!({"metadata": {"labels": {"a": "2", "b": "1"}}})));
        assert!(!selector.matches_object(&json!({"metadata": {"labels": {"a": "2", "b": "1", "c": "x"}}})));
        for bad in [
            json!({"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
            json!({"matchLabels": {"-": "b"}}),
        ] {
            assert!(LabelSelector::from_object(Some(&bad)).is_err(), "{bad}");
        }
        assert!(
            !LabelSelector::from_map(json!({}).as_object()).matches(None),
            "a Service without selector has no pods"
        );
    }

    proptest! {
        /// No text panics, and what parses survives its text form.
        #[test]
        fn text_form_is_a_fixed_point(text in "[ab/=!(),<> ]{0,12}|(a|b)( in | notin |=|!=)\\(?[xy,]{0,4}\\)?") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
