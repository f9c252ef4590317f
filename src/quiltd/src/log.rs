//! Logging: human lines on a terminal, JSON otherwise; to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// Where openraft logs as an error that its core does not listen any more, once for each message of a peer while a replica
/// stops. Why it does not listen is logged elsewhere.
const ENDING: [&str; 2] = ["openraft::raft::raft_inner", "openraft::core::heartbeat::worker"];

/// Starts logging at `directives` (`RUST_LOG` syntax).
pub(crate) fn start(directives: &str) -> anyhow::Result<()> {
    let wrong =
        |error| Failure::Usage(format!("--log '{directives}' is not of the form info,quilt_raft=debug: {error}"));
    let mut filter = EnvFilter::try_new(directives).map_err(wrong)?;
    for target in ENDING.into_iter().filter(|target| !directives.contains(target)) {
        filter = filter.add_directive(format!("{target}=off").parse()?);
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).init();
    }
    Ok(())
}
