//! [`Confirm`]: asks once before something that cannot be taken back.

use std::io::{BufRead, IsTerminal, Write};

use crate::exit::{Failure, hinted};

/// Whether it has been decided already.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Confirm {
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
}

impl Confirm {
    /// Goes on only if `--yes` was given or the person at the terminal agrees. Without anybody to ask the answer is no.
    pub(crate) fn ask(self, question: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        agreed(question, || {
            let error = Failure::Refused(format!("nobody is there to ask: {question}"));
            hinted(error, "say --yes to do it")
        })
    }
}

/// Goes on only if the person at the terminal agrees; `nobody` is the error when no one is there to ask.
pub(crate) fn agreed(question: &str, nobody: impl FnOnce() -> anyhow::Error) -> anyhow::Result<()> {
    let mut answers = std::io::stdin().lock();
    if !std::io::stdin().is_terminal() {
        return Err(nobody());
    }
    // The question stays on its line, so that the answer stands behind it.
    let mut out = std::io::stderr().lock();
    write!(out, "{question} [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    if agrees(&answer) { Ok(()) } else { Err(Failure::Refused("nothing was changed".into()).into()) }
}

fn agrees(answer: &str) -> bool {
    ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::agrees;

    /// Only a plain yes is one.
    #[test]
    fn only_yes_is_yes() {
        assert!(agrees("y\n") && agrees(" Yes\n"));
        for no in ["\n", "", "n\n", "yep\n", "no\n"] {
            assert!(!agrees(no), "{no}");
        }
    }
}
