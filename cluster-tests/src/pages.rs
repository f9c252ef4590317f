//! Reads README and the pages below `docs/` for what a reader would type: their fenced `sh` blocks. It knows Markdown
//! as far as that goes, and sees to it that no command hides in a form which is not run.

use std::path::Path;

use anyhow::{Context, Result};

/// Words with which a line is a command, wherever it stands.
const COMMANDS: &[&str] =
    &["$", "quiltd", "kubectl", "curl", "cargo", "export", "sudo", "apt-get", "systemctl", "kill", "scp", "ssh"];

/// What other fenced blocks may hold: things to read.
const READ: &[&str] = &["text", "json", "yaml", "toml", "rust", "proto", "mermaid"];

/// One page.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Its path, from the root of the repository.
    pub name: String,
    /// Its commands, in order.
    pub blocks: Vec<Block>,
}

/// One fenced `sh` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Line of the page on which its first command stands, counted from 1.
    pub line: usize,
    /// What is between the fences, without the fence's own indentation.
    pub text: String,
}

/// All pages of the repository, README first, the others by name; and what is wrong in them.
///
/// # Errors
/// When one cannot be read.
pub fn all(root: &Path) -> Result<(Vec<Page>, Vec<String>)> {
    let mut names = Vec::new();
    collect(root, Path::new("docs"), &mut names)?;
    names.sort();
    names.insert(0, "README.md".to_owned());
    let mut pages = Vec::new();
    let mut complaints = Vec::new();
    for name in names {
        let text = std::fs::read_to_string(root.join(&name)).with_context(|| format!("{name} cannot be read"))?;
        let (page, wrong) = read(&name, &text);
        pages.push(page);
        complaints.extend(wrong);
    }
    Ok((pages, complaints))
}

fn collect(root: &Path, dir: &Path, names: &mut Vec<String>) -> Result<()> {
    let entries = std::fs::read_dir(root.join(dir)).with_context(|| format!("{} cannot be read", dir.display()))?;
    for entry in entries {
        let path = dir.join(entry?.file_name());
        if root.join(&path).is_dir() {
            collect(root, &path, names)?;
        } else if path.extension().is_some_and(|ending| ending == "md") {
            names.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Reads one page: its blocks, and a complaint for each command that would not be run.
#[must_use]
pub fn read(name: &str, text: &str) -> (Page, Vec<String>) {
    let mut page = Page { name: name.to_owned(), blocks: Vec::new() };
    let mut complaints = Vec::new();
    let mut open: Option<Fence> = None;
    for (number, line) in text.lines().enumerate() {
        let at = number + 1;
        let marks = line.trim_start().chars().take_while(|c| *c == '`').count();
        match &mut open {
            Some(fence) if marks >= fence.marks && line.trim().chars().all(|c| c == '`') => {
                if let Some(block) = open.take().and_then(|fence| fence.block) {
                    page.blocks.push(block);
                }
            }
            Some(fence) => match &mut fence.block {
                Some(block) => {
                    block
                        .text
                        .push_str(line.get(fence.indent.min(line.len() - line.trim_start().len())..).unwrap_or(line));
                    block.text.push('\n');
                }
                None if is_command(line) => {
                    complaints.push(format!("{name}:{at}: a command that is not run; put it into a block of ```sh"));
                }
                None => {}
            },
            None if marks >= 3 => {
                let language = line.trim().trim_start_matches('`').trim();
                let runs = language == "sh";
                if !runs && !READ.contains(&language) {
                    let known = READ.join(", ");
                    complaints.push(format!("{name}:{at}: ```{language}: say ```sh, which is run, or one of {known}"));
                }
                let block = runs.then(|| Block { line: at + 1, text: String::new() });
                open = Some(Fence { marks, indent: line.len() - line.trim_start().len(), block });
            }
            None if line.starts_with("    ") && is_command(line) => {
                complaints.push(format!("{name}:{at}: a command that is not run; put it into a block of ```sh"));
            }
            None => {}
        }
    }
    if open.is_some() {
        complaints.push(format!("{name}: its last block is not closed"));
    }
    (page, complaints)
}

struct Fence {
    marks: usize,
    indent: usize,
    block: Option<Block>,
}

fn is_command(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let Some(first) = words.next() else { return false };
    // A program's name alone or before a column is no command: tables and maps of directories have such lines.
    let has_arguments = words.next().is_some() && !line.trim_start().contains("  ");
    first.starts_with("./") || (COMMANDS.contains(&first) && has_arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks are taken in order with the line of their first command; what is only to be read is not run.
    #[test]
    fn blocks_are_read() {
        let text = "# A\n\n```sh\necho one\necho two\n```\n\n- a list:\n\n  ```sh\n  cat <<E\n    in\n  E\n  ```\n\n```text\nout\n```\n";
        let (page, complaints) = read("a.md", text);
        assert_eq!(complaints, Vec::<String>::new());
        let blocks = vec![
            Block { line: 4, text: "echo one\necho two\n".into() },
            Block { line: 11, text: "cat <<E\n  in\nE\n".into() },
        ];
        assert_eq!(page, Page { name: "a.md".into(), blocks });
    }

    /// A longer fence holds a shorter one as text.
    #[test]
    fn fences_nest() {
        let (page, complaints) = read("a.md", "````text\n```sh\nx\n```\n````\n```sh\ny\n```\n");
        assert_eq!(complaints, Vec::<String>::new());
        assert_eq!(page.blocks, [Block { line: 7, text: "y\n".into() }]);
    }

    /// No command hides: not in a block of another language, not in one without a language, not by indentation.
    #[test]
    fn hidden_commands_are_named() {
        let wrong = |text: &str| read("a.md", text).1.len();
        assert_eq!(wrong("```bash\necho\n```\n"), 1);
        assert_eq!(wrong("```\nsome output\n```\n"), 1);
        assert_eq!(wrong("```text\nkubectl get pods\n```\n"), 1);
        assert_eq!(wrong("```text\n$ ls\n```\n"), 1);
        assert_eq!(wrong("so:\n\n    cargo xtask ci --yes\n"), 1);
        assert_eq!(wrong("```sh\necho\n"), 1);
        assert_eq!(wrong("```text\nkubectl   a client\nquiltd\n```\nkubectl get pods shows them\n"), 0);
    }
}
