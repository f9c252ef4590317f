//! The command line. One table of commands is the source of help and of what runs; one command a file.

mod agent;
mod client;
mod cluster;
mod completions;
mod confirm;
mod dev;
mod form;
mod init;
mod jsonpath;
mod kubeconfig;
mod operator;
mod server;
mod status;
mod tenant;
mod token;
mod version;

pub(crate) use agent::CONTAINER_KEEPER;
pub(crate) use client::refusal;
pub(crate) use kubeconfig::render as render_kubeconfig;
pub(crate) use server::peer_address;

use clap::{CommandFactory, Parser, Subcommand};

/// Highly available control plane for container hosts: Quilt and Kubernetes APIs over one replicated state.
#[derive(Debug, Parser)]
#[command(name = "quiltd", version, max_term_width = 110, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// What is logged, in RUST_LOG syntax.
    #[arg(
        long,
        global = true,
        env = "QUILTD_LOG",
        default_value = "info,openraft=error",
        value_name = "DIRECTIVES",
        help_heading = "Global options"
    )]
    log: String,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Examples:\n  quiltd dev\n  quiltd status\n  quiltd help operator snapshot restore\n\n\
                          Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unavailable or no leader, 5 refused as \
                          unsafe, 6 timed out.";

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Init(init::Init),
    Server(server::Server),
    Agent(agent::Agent),
    Status(status::Status),
    Tenant(tenant::Tenant),
    Cluster(cluster::Cluster),
    Token(token::Token),
    Kubeconfig(kubeconfig::Kubeconfig),
    Operator(operator::Operator),
    Completions(completions::Completions),
    Version(version::Version),
}

/// Runs one command to its end.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Dev(command) => command.run(&cli.log),
        Command::Init(command) => command.run(),
        Command::Server(command) => command.run(&cli.log),
        Command::Agent(command) => command.run(&cli.log),
        Command::Status(command) => command.run(),
        Command::Tenant(command) => command.run(),
        Command::Cluster(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::Kubeconfig(command) => command.run(),
        Command::Operator(command) => command.run(),
        Command::Completions(command) => command.run(Cli::command()),
        Command::Version(command) => command.run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    /// Calls `look` with every command of the table and its words.
    fn each(command: &clap::Command, words: &str, look: &mut impl FnMut(&str, &clap::Command)) {
        look(words, command);
        for below in command.get_subcommands() {
            each(below, &format!("{words} {}", below.get_name()), look);
        }
    }

    /// The examples a command's help gives, each on one line.
    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default().replace(" \\\n   ", "");
        help.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect()
    }

    /// Where the control plane is can be said before and behind the verb, as with kubectl.
    #[test]
    fn connection_flags_stand_anywhere() {
        for line in ["quiltd tenant create acme --ca ca.crt", "quiltd tenant --ca ca.crt create acme"] {
            assert!(super::Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    /// The table of commands is consistent: no flag is declared twice, every default parses.
    #[test]
    fn commands_are_well_formed() {
        super::Cli::command().debug_assert();
    }

    /// Every command's help shows how it is used, and every line it shows is taken by the parser as that command.
    #[test]
    fn examples_parse() {
        each(&super::Cli::command(), "quiltd", &mut |words, command| {
            let examples = examples(command);
            assert!(!examples.is_empty(), "{words} --help gives no example");
            for example in examples {
                assert!(example.starts_with(words), "{words} --help shows `{example}`");
                // What is behind a redirection is the shell's.
                let typed = example.split(" > ").next().unwrap_or_default().split_whitespace();
                let parsed = super::Cli::try_parse_from(typed);
                let help = |error: &clap::Error| error.kind() == clap::error::ErrorKind::DisplayHelp;
                assert!(parsed.as_ref().map_or_else(help, |_| true), "{example}: {}", parsed.expect_err("an error"));
            }
        });
    }

    /// Every command and every flag says what it is for.
    #[test]
    fn everything_is_described() {
        each(&super::Cli::command(), "quiltd", &mut |words, command| {
            assert!(command.get_about().is_some(), "{words} is not described");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{words}: {} is not described", argument.get_id());
            }
        });
    }

    /// Completions are made from the same table for every shell there is.
    #[test]
    fn completions_name_the_commands() {
        use clap::ValueEnum;
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut super::Cli::command(), "quiltd", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("kubeconfig") && script.contains("revoke-key"), "{shell}");
        }
    }
}
