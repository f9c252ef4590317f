//! Logging: human lines on a terminal, JSON otherwise; to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// Starts logging at `directives` (`RUST_LOG` syntax).
pub(crate) fn start(directives: &str) -> anyhow::Result<()> {
    let wrong =
        |error| Failure::Usage(format!("--log '{directives}' is not of the form info,quilt_raft=debug: {error}"));
    let filter = EnvFilter::try_new(directives).map_err(wrong)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).init();
    }
    Ok(())
}
