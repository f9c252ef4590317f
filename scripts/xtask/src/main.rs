//! `cargo xtask`: the project's own chores, one module each.
#![forbid(unsafe_code)]

mod kindgen;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of the project.
#[derive(Debug, Parser)]
#[command(name = "xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes generated files that are checked in.
    #[command(subcommand)]
    Gen(Gen),
}

#[derive(Debug, Subcommand)]
enum Gen {
    /// The kinds table of quilt-objects, from Kubernetes' own sources.
    Kinds(kindgen::Args),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Gen(Gen::Kinds(args)) => kindgen::run(&args),
    }
}
