//! The command line. One table of commands is the source of help and of what runs; one command a file.

mod agent;
mod client;
mod dev;
mod form;
mod init;
mod jsonpath;
mod kubeconfig;
mod operator;
mod server;
mod status;
mod tenant;
mod version;

pub(crate) use agent::CONTAINER_KEEPER;
pub(crate) use kubeconfig::render as render_kubeconfig;

use clap::{Parser, Subcommand};

/// Highly available control plane for container hosts: Quilt and Kubernetes APIs over one replicated state.
#[derive(Debug, Parser)]
#[command(name = "quiltd", version, disable_help_subcommand = true, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What is logged, in RUST_LOG syntax.
    #[arg(long, global = true, env = "QUILTD_LOG", default_value = "info,openraft=warn", value_name = "DIRECTIVES")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unavailable or no leader, 5 refused as \
                          unsafe, 6 timed out.";

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Init(init::Init),
    Server(server::Server),
    Agent(agent::Agent),
    Status(status::Status),
    Tenant(tenant::Tenant),
    Kubeconfig(kubeconfig::Kubeconfig),
    Operator(operator::Operator),
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
        Command::Kubeconfig(command) => command.run(),
        Command::Operator(command) => command.run(),
        Command::Version(command) => command.run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

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
}
