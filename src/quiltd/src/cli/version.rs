//! `quiltd version`.

use crate::cli::form::Output;
use crate::output;

/// Version of this binary and of the Kubernetes API it claims.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quiltd version\n  quiltd version -o jsonpath={.kubernetes}")]
pub(crate) struct Version {
    #[command(flatten)]
    output: Output,
}

impl Version {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let quiltd = env!("CARGO_PKG_VERSION");
        let kubernetes = concat!("v1.36.0+quilt.", env!("CARGO_PKG_VERSION"));
        self.output.show(&serde_json::json!({ "quiltd": quiltd, "kubernetes": kubernetes }), |_| {
            output::line(&format!("quiltd {quiltd}"));
            output::line(&format!("kubernetes {kubernetes}"));
        })
    }
}
