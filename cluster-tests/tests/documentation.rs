//! Every command of README and of the pages below `docs/` is run as a reader would, on a real control plane.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cluster_tests::pages::{self, Page};
use cluster_tests::reader;

fn pages() -> Result<Vec<Page>> {
    let (pages, complaints) = pages::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))?;
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(pages)
}

/// README's walk works from its first to its last command, and it is made of the commands that `quiltd dev` prints.
#[tokio::test]
async fn readme_is_walked() -> Result<()> {
    let page = pages()?.into_iter().find(|page| page.name == "README.md").context("there is a README")?;
    let read = reader::follow(&page).await?;
    let typed: Vec<String> = page.blocks.iter().map(|block| read.substitute(&block.text)).collect();
    let typed: Vec<&str> = typed.iter().flat_map(|text| text.lines()).map(str::trim).collect();
    let said = read.said().first().context("README starts a cluster")?;
    let missing: Vec<&str> =
        said.lines().filter_map(|line| line.strip_prefix("  ")).filter(|command| !typed.contains(command)).collect();
    ensure!(missing.is_empty(), "README does not walk through what dev prints:\n{}", missing.join("\n"));
    let answers = read.answers()?;
    let last = answers.last().context("README has commands")?;
    ensure!(last.lines().any(|line| line == "30"), "the killed leader took writes along: {last}");
    Ok(())
}

/// The other pages can be followed, each by itself.
#[tokio::test]
async fn pages_are_followed() -> Result<()> {
    let mut failures = Vec::new();
    for page in pages()?.iter().filter(|page| page.name != "README.md" && !page.blocks.is_empty()) {
        if let Err(error) = reader::follow(page).await {
            failures.push(format!("{error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// A page that is wrong is told so with the place, the output and the exit code: of the commands before it, only the
/// state of the shell is carried on.
#[tokio::test]
async fn a_failing_command_is_named() -> Result<()> {
    let text = "# Page\n\n```sh\nexport WORD=kept\ncd ..\n```\n\nthen\n\n```sh\necho \"$WORD\"\npwd | grep -v clone\n(exit 7)\necho not reached\n```\n";
    let (page, complaints) = pages::read("docs/page.md", text);
    ensure!(complaints.is_empty(), "{complaints:?}");
    let error = reader::follow(&page).await.err().context("it fails")?;
    let told = format!("{error:#}");
    for word in ["docs/page.md:11", "line 13", "exit code 7", "kept\n"] {
        ensure!(told.contains(word), "{word} is not told: {told}");
    }
    ensure!(!told.contains("not reached\n── ") || told.matches("not reached").count() == 1, "{told}");
    if let Some((_, kept)) = told.rsplit_once("its directory is kept: ") {
        std::fs::remove_dir_all(kept.trim())?;
    }
    Ok(())
}

/// What ends a page early does not pass: an unset variable, a failure on the left of a pipe, a program that is not there.
#[tokio::test]
async fn the_shell_is_strict() -> Result<()> {
    for command in ["echo \"$NOT_SET\"", "false | cat", "no-such-program --now", "exit 0", "for i in 1; do\n"] {
        let (page, _) = pages::read("docs/page.md", &format!("```sh\n{command}\n```\n"));
        let error = reader::follow(&page).await.err().with_context(|| format!("{command} passed"))?;
        let told = format!("{error:#}");
        ensure!(told.starts_with("docs/page.md:2: line "), "{told}");
        if let Some((_, kept)) = told.rsplit_once("its directory is kept: ") {
            std::fs::remove_dir_all(kept.trim())?;
        }
    }
    Ok(())
}
