//! `quiltd`: the highly available control plane for container hosts, in one binary.
//!
//! This crate only wires: it parses the command line, reads configuration and certificates, starts the parts in order
//! and stops them in the opposite one. What the control plane does lives in the crates below.
#![forbid(unsafe_code)]

mod assemble;
mod cli;
mod dev;
mod exit;
mod host;
mod http;
mod join;
mod kv;
mod listener;
mod log;
mod malloc;
mod operator;
mod output;
mod secret;
mod tls;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Keepers run in the environment of their container, which must not be taken for options of ours.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == cli::CONTAINER_KEEPER) {
        return quilt_agent::keeper::run(arguments);
    }
    let command = cli::Cli::parse();
    // One TLS backend for the whole process; a second call would only find it already there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
