//! Logging: human lines on a terminal, JSON otherwise; to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging at `directives` (`RUST_LOG` syntax).
pub(crate) fn start(directives: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(directives)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).init();
    }
    Ok(())
}
