//! Licences and duplicate versions of outside crates, judged by `deny.toml`, which is in cargo-deny's own format, so
//! that either tool reads it. Needs no network.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use toml_edit::{DocumentMut, Item};

use crate::workspace::{Package, Workspace, verdict};

/// What `deny.toml` says, as far as we judge by it.
#[derive(Debug, Default)]
struct Rules {
    allow: BTreeSet<String>,
    exceptions: BTreeMap<String, BTreeSet<String>>,
    deny: BTreeMap<String, String>,
    skip: BTreeSet<String>,
}

/// Judges every crate of a build for our target.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let text = std::fs::read_to_string(workspace.workspace_root.join("deny.toml")).context("reading deny.toml")?;
    let rules = Rules::parse(&text)?;
    let reached = workspace.reached();
    let members: BTreeSet<&str> = workspace.members().map(|package| package.id.as_str()).collect();
    let outside: Vec<&Package> =
        reached.values().copied().filter(|package| !members.contains(package.id.as_str())).collect();
    for name in rules.idle_skips(&outside) {
        eprintln!("   deny.toml skips {name}, which is not there twice any more");
    }
    verdict(rules.judge(&outside))
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let file: DocumentMut = text.parse().context("deny.toml is not TOML")?;
        let mut rules = Self { allow: strings(&file["licenses"]["allow"]), ..Self::default() };
        for exception in tables(&file["licenses"]["exceptions"]) {
            rules.exceptions.insert(exception.name, exception.allow);
        }
        for denied in tables(&file["bans"]["deny"]) {
            rules.deny.insert(denied.name, denied.reason.context("deny.toml: a ban needs a reason")?);
        }
        for skipped in tables(&file["bans"]["skip"]) {
            skipped.reason.with_context(|| format!("deny.toml: skipping {} needs a reason", skipped.name))?;
            rules.skip.insert(skipped.name);
        }
        Ok(rules)
    }

    fn judge(&self, packages: &[&Package]) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for package in packages {
            let Package { name, version, license, .. } = package;
            versions.entry(name).or_default().insert(version);
            if let Some(reason) = self.deny.get(name) {
                complaints.push(format!("{name} {version} is banned: {reason}"));
            }
            match license {
                None => complaints.push(format!("{name} {version} does not say its licence")),
                Some(expression) => {
                    let allowed = |licence: &str| {
                        self.allow.contains(licence)
                            || self.exceptions.get(name).is_some_and(|more| more.contains(licence))
                    };
                    if !satisfied(expression, &allowed) {
                        complaints.push(format!("{name} {version} is licensed {expression:?}, which is not allowed"));
                    }
                }
            }
        }
        for (name, versions) in &versions {
            if versions.len() > 1 && !self.skip.contains(*name) {
                let versions: Vec<&str> = versions.iter().copied().collect();
                complaints.push(format!("{name} is there in {} versions: {}", versions.len(), versions.join(", ")));
            }
        }
        complaints
    }

    /// Skips that are no longer needed: no fault of the change at hand, so they are only told.
    fn idle_skips(&self, packages: &[&Package]) -> Vec<&str> {
        let twice = |name: &str| {
            let versions: BTreeSet<&str> = packages
                .iter()
                .filter(|package| package.name == name)
                .map(|package| package.version.as_str())
                .collect();
            versions.len() > 1
        };
        self.skip.iter().map(String::as_str).filter(|name| !twice(name)).collect()
    }
}

/// One entry of a list in `deny.toml`.
struct Entry {
    name: String,
    reason: Option<String>,
    allow: BTreeSet<String>,
}

fn strings(item: &Item) -> BTreeSet<String> {
    item.as_array().into_iter().flatten().filter_map(|value| Some(value.as_str()?.to_owned())).collect()
}

fn tables(item: &Item) -> Vec<Entry> {
    let inline = item.as_array().into_iter().flatten().filter_map(toml_edit::Value::as_inline_table);
    inline
        .filter_map(|table| {
            let text = |key: &str| Some(table.get(key)?.as_str()?.to_owned());
            let allow = table.get("allow").and_then(toml_edit::Value::as_array);
            Some(Entry {
                name: text("crate").or_else(|| text("name"))?,
                reason: text("reason"),
                allow: allow.into_iter().flatten().filter_map(|value| Some(value.as_str()?.to_owned())).collect(),
            })
        })
        .collect()
}

/// Whether a licence expression can be met with allowed licences. `AND` binds tighter than `OR`; a slash is an old `OR`.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = either(&mut words, allowed);
    // Words left over mean that we did not understand it, and then it is not allowed.
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= both(words, allowed);
    }
    met
}

fn both(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &dyn Fn(&str) -> bool) -> bool {
    match words.next() {
        Some("(") => {
            let met = either(words, allowed);
            words.next_if_eq(&")").is_some() && met
        }
        Some(licence) => {
            // An exception only ever permits more than the licence it is attached to.
            let excepted = words.next_if_eq(&"WITH").and_then(|_| words.next());
            allowed(licence) || excepted.is_some_and(|more| allowed(&format!("{licence} WITH {more}")))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expressions as crates write them.
    #[test]
    fn expressions() {
        let allowed = |licence: &str| ["MIT", "Apache-2.0", "ISC"].contains(&licence);
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "Apache-2.0 AND ISC",
            "(MIT OR GPL-2.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-2.0", "", "(MIT", "MIT MIT", "OR"] {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }

    /// A licence, a ban, a duplicate are each named, and so is a skip that is no longer needed.
    #[test]
    fn rules() {
        let rules = Rules::parse(
            r#"
            [licenses]
            allow = ["MIT"]
            exceptions = [{ allow = ["Zlib"], crate = "z" }]
            [bans]
            deny = [{ crate = "evil", reason = "it is" }]
            skip = [{ crate = "twice", reason = "moving" }, { crate = "once", reason = "gone" }]
            "#,
        )
        .unwrap();
        let package = |name: &str, version: &str, license: &str| Package {
            id: format!("{name} {version}"),
            name: name.into(),
            version: version.into(),
            license: (!license.is_empty()).then(|| license.into()),
            manifest_path: "".into(),
            dependencies: Vec::new(),
        };
        let packages = [
            package("a", "1", "MIT"),
            package("b", "1", "GPL-3.0"),
            package("c", "1", ""),
            package("evil", "1", "MIT"),
            package("twice", "1", "MIT"),
            package("twice", "2", "MIT"),
            package("both", "1", "MIT"),
            package("both", "2", "MIT"),
            package("z", "1", "Zlib"),
        ];
        let packages: Vec<&Package> = packages.iter().collect();
        assert_eq!(rules.idle_skips(&packages), ["once"]);
        let found = rules.judge(&packages);
        assert_eq!(found.len(), 4, "{found:?}");
        for word in ["b 1 is licensed", "c 1 does not say", "evil 1 is banned", "both is there in 2"] {
            assert!(found.iter().any(|line| line.contains(word)), "{word}");
        }
    }
}
