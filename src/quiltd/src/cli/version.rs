//! `quiltd version`.

use crate::output;

/// Version of this binary and of the Kubernetes API it claims.
#[derive(Debug, clap::Args)]
pub(crate) struct Version {}

impl Version {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        output::line(&format!("quiltd {}", env!("CARGO_PKG_VERSION")));
        output::line(&format!("kubernetes v1.36.0+quilt.{}", env!("CARGO_PKG_VERSION")));
        Ok(())
    }
}
