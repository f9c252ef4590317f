//! The keeper of one container as a program of its own, for tests of this crate; in production it is a hidden command
//! of the product's one binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    quilt_agent::keeper::run(std::env::args_os().skip(1))
}
