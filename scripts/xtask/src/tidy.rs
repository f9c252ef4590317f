//! Tidiness that no compiler sees: every module says what it is for, every crate is under the lints, documents name
//! things that exist. Only what would be a defect is here.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace::{Workspace, shown, verdict};

/// Lines in one source file; longer ones hide things. Generated files are exempt.
const LINES_MAX: usize = 800;

/// Mark, within the first lines, of a file that a chore writes.
const GENERATED: &str = "@generated";

/// Words that have no place in what lands.
const BANNED: &[(&str, &str)] = &[
    ("todo!(", "finish it or leave it out"),
    ("unimplemented!(", "finish it or leave it out"),
    ("FIXME", "repair it, or write an issue"),
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["utils.rs", "util.rs", "helpers.rs", "helper.rs", "common.rs", "misc.rs", "manager.rs"];

/// Looks at all files.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = &workspace.workspace_root;
    let files = workspace.files()?;
    let mut complaints = Vec::new();
    for name in &files {
        let path = root.join(name);
        if name.ends_with(".rs") {
            let text = read(&path)?;
            complaints.extend(source(name, &text));
        } else if name.ends_with(".md") {
            let text = read(&path)?;
            complaints.extend(document(root, name, &text));
        }
    }
    for package in workspace.members() {
        complaints.extend(manifest(root, &package.name, &package.manifest_path)?);
    }
    complaints.extend(stricter_lints(root, &files)?);
    complaints.extend(crates_are_described(workspace)?);
    verdict(complaints)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn is_generated(text: &str) -> bool {
    text.lines().take(5).any(|line| line.contains(GENERATED))
}

fn source(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let first = text.lines().find(|line| !line.trim().is_empty());
    if !first.is_some_and(|line| line.starts_with("//!")) {
        complaints.push(format!("{name}: begins without //!: say what the module is for and what it must not know"));
    }
    if is_generated(text) {
        return complaints;
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        complaints.push(format!("{name}: {lines} lines; more than {LINES_MAX} are two ideas"));
    }
    let file = name.rsplit('/').next().unwrap_or(name);
    if EMPTY_NAMES.contains(&file) {
        complaints.push(format!("{name}: the name says nothing of what is inside"));
    }
    // This file has to spell the words.
    if !name.ends_with("xtask/src/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            for (word, remedy) in BANNED.iter().filter(|(word, _)| line.contains(word)) {
                complaints.push(format!("{name}:{}: {word}: {remedy}", number + 1));
            }
        }
    }
    complaints
}

fn manifest(root: &Path, package: &str, path: &Path) -> Result<Vec<String>> {
    let text = read(path)?;
    let name = shown(root, path);
    let mut complaints = Vec::new();
    if !text.split("[lints]").nth(1).is_some_and(|rest| rest.trim_start().starts_with("workspace = true")) {
        complaints.push(format!("{name}: has no [lints] workspace = true"));
    }
    // The shims that inject faults may need unsafe code, each with its reason; nothing else may.
    if package.starts_with("cluster-tests") {
        return Ok(complaints);
    }
    let dir = path.parent().context("a manifest has a directory")?;
    for root_file in ["src/lib.rs", "src/main.rs"] {
        let source = dir.join(root_file);
        if source.exists() && !read(&source)?.contains("#![forbid(unsafe_code)]") {
            complaints.push(format!("{}: has no #![forbid(unsafe_code)]", shown(root, &source)));
        }
    }
    Ok(complaints)
}

/// A crate's own `clippy.toml` replaces the root's, so it has to repeat it.
fn stricter_lints(root: &Path, files: &[String]) -> Result<Vec<String>> {
    let bans = |text: &str| -> BTreeSet<String> {
        let paths = text.split("path = \"").skip(1).filter_map(|rest| rest.split('"').next());
        paths.map(str::to_owned).collect()
    };
    let ours = bans(&read(&root.join("clippy.toml"))?);
    let mut complaints = Vec::new();
    for name in files.iter().filter(|name| name.ends_with("/clippy.toml")) {
        let theirs = bans(&read(&root.join(name))?);
        for missing in ours.difference(&theirs) {
            complaints.push(format!("{name}: replaces the root's file and does not repeat its ban of {missing}"));
        }
    }
    Ok(complaints)
}

/// The map of the code names every crate.
fn crates_are_described(workspace: &Workspace) -> Result<Vec<String>> {
    let path = workspace.workspace_root.join("docs/architecture.md");
    if !path.exists() {
        return Ok(vec!["docs/architecture.md is not there: a newcomer has no map".into()]);
    }
    let text = read(&path)?;
    let missing = workspace.members().filter(|package| package.name != "xtask" && !text.contains(&package.name));
    Ok(missing.map(|package| format!("docs/architecture.md does not name {}", package.name)).collect())
}

fn document(root: &Path, name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let dir = Path::new(name).parent().unwrap_or_else(|| Path::new(""));
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        let at = number + 1;
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            let command = line.trim_start().trim_start_matches("$ ");
            if let Some(script) = command.split_whitespace().next().filter(|word| word.starts_with("./"))
                && script.starts_with("./scripts/")
                && !root.join(script).exists()
            {
                complaints.push(format!("{name}:{at}: the command {script} is not there"));
            }
            continue;
        }
        for target in links(line) {
            let target = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !outside && !root.join(resolve(dir, target)).exists() {
                complaints.push(format!("{name}:{at}: the link to {target} leads nowhere"));
            }
        }
        for path in spelled_paths(line) {
            if !root.join(path.trim_start_matches("./")).exists() {
                complaints.push(format!("{name}:{at}: {path} is not there"));
            }
        }
    }
    complaints
}

/// Targets of links in one line of a document.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::trim).collect()
}

/// A link's target, from the root of the repository.
fn resolve(dir: &Path, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in dir.join(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::Normal(name) => path.push(name),
        }
    }
    path
}

/// Paths of this repository spelled between backticks. A word with a pattern or a place-holder in it is none.
fn spelled_paths(line: &str) -> Vec<&str> {
    const TOP: &[&str] =
        &["proto/", "storage/", "raft/", "src/", "cluster-tests/", "scripts/", "./scripts/", "docs/", ".ci/"];
    let spelled = line.split('`').skip(1).step_by(2);
    let plain = |word: &&str| {
        word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'))
            && TOP.iter().any(|top| word.starts_with(top))
    };
    spelled.filter(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a source file may not be.
    #[test]
    fn sources() {
        assert!(source("a/b.rs", "//! What it is.\nfn f() {}\n").is_empty());
        assert_eq!(source("a/b.rs", "fn f() {}\n").len(), 1);
        assert_eq!(source("a/b.rs", "//! x\nfn f() { todo!() }\n").len(), 1);
        assert_eq!(source("a/utils.rs", "//! x\n").len(), 1);
        let long = format!("//! x\n{}", "// y\n".repeat(LINES_MAX));
        assert_eq!(source("a/b.rs", &long).len(), 1);
        assert!(source("a/b.rs", &long.replacen("// y", "// @generated", 1)).is_empty());
    }

    /// Links and paths are followed from where the document stands; patterns, addresses and anchors are not.
    #[test]
    fn documents() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("docs/start")).unwrap();
        std::fs::write(dir.path().join("docs/a.md"), "").unwrap();
        let check = |text: &str| document(dir.path(), "docs/start/b.md", text).len();
        assert_eq!(check("see [a](../a.md#top) and [web](https://example.org/x) and [here](#there)"), 0);
        assert_eq!(check("see [a](a.md)"), 1);
        assert_eq!(check("in `docs/a.md`, `docs/*.md` and `src/<kind>.rs`"), 0);
        assert_eq!(check("in `docs/missing.md`"), 1);
        assert_eq!(check("```sh\n./scripts/missing\n```"), 1);
    }
}
