//! The query parameters of Kubernetes requests, parsed once into types. Unknown parameters are ignored, as upstream
//! does; known ones with values that cannot be read are refused, naming the parameter.

use std::time::Duration;

use quilt_objects::decode::FieldValidation;

use crate::problem::Problem;
use crate::route::percent_decode;

/// Decoded query pairs, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// Pairs a client may send; more than any real one.
const PAIRS_MAX: usize = 256;

impl Query {
    /// Splits and decodes a raw query string; stray `&` and empty pairs are harmless.
    pub(crate) fn parse(raw: Option<&str>) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in raw.unwrap_or_default().trim_start_matches('?').split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == PAIRS_MAX {
                return Err(Problem::bad_request(format!("the query has more than {PAIRS_MAX} parameters")));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text| {
                percent_decode(text, true).ok_or_else(|| {
                    Problem::bad_request(format!("query parameter {name:?} is not percent-encoded text"))
                })
            };
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The first value of a parameter; an empty value counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the parameter is there at all, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// A flag, with the spellings Go accepts; `?watch` alone means yes.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(self.has(name) && name == "watch"),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(unreadable(name, other, "true or false")),
        }
    }

    /// An integer that is not negative.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.get(name).map(|text| text.parse::<u64>().map_err(|_| unreadable(name, text, "a whole number"))).transpose()
    }

    /// `dryRun=All`; anything else is refused.
    pub(crate) fn dry_run(&self) -> Result<DryRun, Problem> {
        let mut dry_run = DryRun::Off;
        for value in self.all("dryRun").filter(|value| !value.is_empty()) {
            if value != "All" {
                return Err(unreadable("dryRun", value, "All"));
            }
            dry_run = DryRun::All;
        }
        Ok(dry_run)
    }

    /// `fieldValidation`, `Warn` when absent.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, Problem> {
        let text = self.get("fieldValidation").unwrap_or_default();
        FieldValidation::parse(text).ok_or_else(|| unreadable("fieldValidation", text, "Ignore, Warn or Strict"))
    }

    /// How long the request may be held: `?timeout=`, never more than `most`.
    pub(crate) fn deadline(&self, most: Duration) -> Result<Duration, Problem> {
        let Some(text) = self.get("timeout") else { return Ok(most) };
        let asked = duration(text).ok_or_else(|| unreadable("timeout", text, "a duration such as 10s"))?;
        Ok(if asked.is_zero() { most } else { asked.min(most) })
    }
}

fn unreadable(name: &str, value: &str, expected: &str) -> Problem {
    Problem::bad_request(format!("query parameter {name} is {value:?}, expected {expected}"))
}

/// Reads a Go duration such as `1m30s` or `250ms`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let (unit, tail) = tail.split_at_checked(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()))?;
        let number: f64 = number.parse().ok()?;
        let seconds = match unit {
            "ns" => number / 1e9,
            "us" | "µs" => number / 1e6,
            "ms" => number / 1e3,
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = tail;
    }
    Some(total)
}

/// Whether a write is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DryRun {
    /// The write is real.
    Off,
    /// Everything up to the proposal is done, nothing is stored or allocated.
    All,
}

/// How a resourceVersion parameter is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// Nothing was said.
    Unset,
    /// `NotOlderThan`.
    NotOlderThan,
    /// `Exact`.
    Exact,
}

/// The state a read wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadAt {
    /// The latest committed state (no resourceVersion).
    Latest,
    /// Any local state (`resourceVersion=0`).
    Any,
    /// A state at least this new.
    NotOlderThan(u64),
    /// Exactly this state.
    Exact(u64),
}

/// Parameters of list and watch.
#[derive(Clone, Debug)]
pub(crate) struct ListOptions {
    /// `labelSelector` as sent.
    pub(crate) label_selector: String,
    /// `fieldSelector` as sent.
    pub(crate) field_selector: String,
    /// `limit`; 0 = all.
    pub(crate) limit: u64,
    /// `continue`.
    pub(crate) continue_token: Option<String>,
    /// The state to list, or to watch from.
    pub(crate) read_at: ReadAt,
    /// `resourceVersion` as sent, for watches.
    pub(crate) resource_version: Option<u64>,
}

/// Reads a resourceVersion; `None` when absent.
pub(crate) fn resource_version(query: &Query) -> Result<Option<u64>, Problem> {
    query
        .get("resourceVersion")
        .map(|text| {
            text.parse::<u64>().map_err(|_| {
                Problem::bad_request(format!("query parameter resourceVersion is {text:?}, expected a decimal number"))
            })
        })
        .transpose()
}

fn version_match(query: &Query) -> Result<Match, Problem> {
    match query.get("resourceVersionMatch") {
        None => Ok(Match::Unset),
        Some("NotOlderThan") => Ok(Match::NotOlderThan),
        Some("Exact") => Ok(Match::Exact),
        Some(other) => Err(Problem::invalid_option(
            "resourceVersionMatch",
            &format!("unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""),
        )),
    }
}

impl ListOptions {
    /// Parameters of a list, with the rules that tie resourceVersion, its match and continue together.
    pub(crate) fn for_list(query: &Query) -> Result<Self, Problem> {
        let version = resource_version(query)?;
        let version_match = version_match(query)?;
        let limit = query.number("limit")?.unwrap_or(0);
        let continue_token = query.get("continue").map(str::to_owned);
        let read_at = if continue_token.is_some() {
            if version_match != Match::Unset {
                let message = "resourceVersionMatch is forbidden when continue is provided";
                return Err(Problem::invalid_option("resourceVersionMatch", message));
            }
            if version.is_some_and(|version| version != 0) {
                return Err(Problem::bad_request(
                    "specifying resource version is not allowed when using continue".to_owned(),
                ));
            }
            ReadAt::Latest
        } else {
            match (version_match, version) {
                (Match::Unset, None) => ReadAt::Latest,
                (Match::Unset | Match::NotOlderThan, Some(0)) => ReadAt::Any,
                (Match::Unset, Some(version)) if limit > 0 => ReadAt::Exact(version),
                (Match::Unset | Match::NotOlderThan, Some(version)) => ReadAt::NotOlderThan(version),
                (Match::Exact, Some(version)) if version > 0 => ReadAt::Exact(version),
                (Match::Exact, Some(_)) => {
                    let message = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                    return Err(Problem::invalid_option("resourceVersionMatch", message));
                }
                (Match::Exact | Match::NotOlderThan, None) => {
                    let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                    return Err(Problem::invalid_option("resourceVersionMatch", message));
                }
            }
        };
        Ok(Self { limit, continue_token, read_at, resource_version: version, ..Self::selectors(query) })
    }

    fn selectors(query: &Query) -> Self {
        Self {
            label_selector: query.get("labelSelector").unwrap_or_default().to_owned(),
            field_selector: query.get("fieldSelector").unwrap_or_default().to_owned(),
            limit: 0,
            continue_token: None,
            read_at: ReadAt::Latest,
            resource_version: None,
        }
    }
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchStart {
    /// With the present state as ADDED events, then changes.
    State {
        /// The oldest state that will do.
        at: ReadAt,
        /// Whether the end of the initial state is marked by a bookmark.
        marked: bool,
    },
    /// With every change after this revision.
    After(u64),
}

/// Parameters of a watch.
#[derive(Clone, Debug)]
pub(crate) struct WatchOptions {
    /// Selectors, as for lists.
    pub(crate) list: ListOptions,
    /// Where it begins.
    pub(crate) start: WatchStart,
    /// Whether BOOKMARK events are wanted.
    pub(crate) bookmarks: bool,
    /// `timeoutSeconds`.
    pub(crate) timeout: Option<Duration>,
}

impl WatchOptions {
    /// Parameters of a watch, with the rules of WatchList.
    pub(crate) fn parse(query: &Query) -> Result<Self, Problem> {
        let version = resource_version(query)?;
        let version_match = version_match(query)?;
        let bookmarks = query.flag("allowWatchBookmarks")?;
        let initial = match query.get("sendInitialEvents") {
            None => None,
            Some(_) => Some(query.flag("sendInitialEvents")?),
        };
        match (initial, version_match) {
            (Some(_), Match::NotOlderThan) | (None, Match::Unset) => {}
            (Some(_), _) => {
                let message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return Err(Problem::invalid_option("resourceVersionMatch", message));
            }
            (None, _) => {
                let message = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return Err(Problem::invalid_option("resourceVersionMatch", message));
            }
        }
        let at = match version {
            None => ReadAt::Latest,
            Some(0) => ReadAt::Any,
            Some(version) => ReadAt::NotOlderThan(version),
        };
        let start = match (initial, version) {
            (Some(true), _) => WatchStart::State { at, marked: bookmarks },
            (_, None | Some(0)) if initial.is_none() => WatchStart::State { at, marked: false },
            // Without initial events and without a version, changes from the present state on.
            (_, version) => WatchStart::After(version.unwrap_or(0)),
        };
        let timeout = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let mut list = ListOptions::selectors(query);
        list.resource_version = version;
        list.read_at = at;
        Ok(Self { list, start, bookmarks, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(raw: &str) -> Result<ReadAt, u16> {
        let query = Query::parse(Some(raw)).expect("a query");
        ListOptions::for_list(&query).map(|options| options.read_at).map_err(|problem| problem.code())
    }

    /// The rules that tie resourceVersion, resourceVersionMatch, limit and continue together.
    #[test]
    fn list_versions() {
        assert_eq!(list(""), Ok(ReadAt::Latest));
        assert_eq!(list("?&limit=5"), Ok(ReadAt::Latest));
        assert_eq!(list("resourceVersion=0"), Ok(ReadAt::Any));
        assert_eq!(list("resourceVersion=7"), Ok(ReadAt::NotOlderThan(7)));
        assert_eq!(list("resourceVersion=7&limit=5"), Ok(ReadAt::Exact(7)));
        assert_eq!(list("resourceVersion=7&resourceVersionMatch=Exact"), Ok(ReadAt::Exact(7)));
        assert_eq!(list("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan"), Ok(ReadAt::NotOlderThan(7)));
        assert_eq!(list("resourceVersion=0&resourceVersionMatch=Exact"), Err(422));
        assert_eq!(list("resourceVersionMatch=Exact"), Err(422));
        assert_eq!(list("resourceVersionMatch=NotOlderThan"), Err(422));
        assert_eq!(list("continue=x&resourceVersionMatch=Exact&resourceVersion=7"), Err(422));
        assert_eq!(list("continue=x&resourceVersion=7"), Err(400));
        assert_eq!(list("continue=x&resourceVersion=0"), Ok(ReadAt::Latest));
        assert_eq!(list("resourceVersion=abc"), Err(400));
        assert_eq!(list("limit=-1"), Err(400));
    }

    /// The rules of sendInitialEvents.
    #[test]
    fn watch_starts() {
        let start = |raw: &str| {
            let query = Query::parse(Some(raw)).expect("a query");
            WatchOptions::parse(&query).map(|options| options.start).map_err(|problem| problem.code())
        };
        let state = |at, marked| Ok(WatchStart::State { at, marked });
        assert_eq!(start("watch=1"), state(ReadAt::Latest, false));
        assert_eq!(start("resourceVersion=0"), state(ReadAt::Any, false));
        assert_eq!(start("resourceVersion=9"), Ok(WatchStart::After(9)));
        let initial = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(start(initial), state(ReadAt::Latest, true));
        assert_eq!(start(&format!("{initial}&resourceVersion=9")), state(ReadAt::NotOlderThan(9), true));
        assert_eq!(start("sendInitialEvents=true"), Err(422));
        assert_eq!(start("resourceVersionMatch=NotOlderThan&resourceVersion=3"), Err(422));
        assert_eq!(start("sendInitialEvents=maybe&resourceVersionMatch=NotOlderThan"), Err(400));
    }

    /// Go's durations and plain seconds.
    #[test]
    fn durations() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("7"), Some(Duration::from_secs(7)));
        for bad in ["x", "10", "s", "1x", "-5s", "1e400h"] {
            let expected = if bad == "10" { Some(Duration::from_secs(10)) } else { None };
            assert_eq!(duration(bad), expected, "{bad}");
        }
    }
}
