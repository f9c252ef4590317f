//! `cargo xtask`: the project's own chores, one module each.
//!
//! `ci` is the one gate: the same on a desk and on a runner, and it never writes; `fix` writes. Everything else is a
//! part of the gate that can be run alone, or makes something the gate needs.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "chores talk to the person who runs them")]

mod bench;
mod cache;
mod chaos;
mod ci;
mod debian;
mod dev;
mod edges;
mod kindgen;
mod kubectl;
mod licences;
mod rocksdb;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Chores of the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The gate: formatting, crate edges, tidiness, licences, lints, documents, tests. Never writes.
    Ci(ci::Args),
    /// Repairs what can be repaired by machine: formatting and simple lints.
    Fix,
    /// Module and crate docs, lints switched on, links in documents, sizes of files.
    Tidy,
    /// Who imports whom, among our crates and of outside ones.
    Edges,
    /// Licences and duplicate versions of outside crates, by deny.toml.
    Licences,
    /// Builds quiltd and starts a control plane of three replicas; arguments go to `quiltd dev`.
    Dev(dev::Args),
    /// Builds quiltd as it ships and measures it; the rest of the arguments goes to the measuring program.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Builds quiltd and breaks it while clients work on it; the rest of the arguments goes to the program that does.
    Chaos(chaos::Args),
    /// Builds RocksDB into the cache, unless it is there, and prints the variables that make cargo use it.
    Rocksdb,
    /// Finds or fetches a kubectl that is new enough for the tests, and prints its path.
    Kubectl,
    /// Writes generated files that are checked in.
    #[command(subcommand)]
    Gen(Gen),
}

#[derive(Debug, Subcommand)]
enum Gen {
    /// The kinds table of quilt-objects, from Kubernetes' own sources.
    Kinds(kindgen::Args),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What failed, then why, one below the other: whoever reads it wants the place, not a stack.
            for cause in error.chain() {
                eprintln!("{cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Ci(args) => ci::run(&Workspace::load()?, &args),
        Command::Fix => ci::fix(&Workspace::load()?),
        Command::Tidy => tidy::check(&Workspace::load()?),
        Command::Edges => edges::check(&Workspace::load()?),
        Command::Licences => licences::check(&Workspace::load()?),
        Command::Dev(args) => dev::run(&Workspace::load()?, &args),
        Command::Bench(bench) => bench::run(&Workspace::load()?, &bench),
        Command::Chaos(args) => chaos::run(&Workspace::load()?, &args),
        Command::Rocksdb => {
            for (name, value) in rocksdb::ensure(&Workspace::load()?)? {
                println!("export {name}={}", value.display());
            }
            Ok(())
        }
        Command::Kubectl => {
            println!("{}", kubectl::ensure()?.display());
            Ok(())
        }
        Command::Gen(Gen::Kinds(args)) => kindgen::run(&args),
    }
}
