//! `quiltd completions`: what a shell needs to complete this command line, made from the table that parses it.

use std::io::Write;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd completions bash > /etc/bash_completion.d/quiltd\n  quiltd completions zsh > _quiltd"
)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(&self, mut table: clap::Command) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut table, "quiltd", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        Ok(())
    }
}
