//! `chaos`: breaks a real control plane and judges what its clients saw. See `docs/operate/chaos.md`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cluster_tests::chaos::command::main()
}
