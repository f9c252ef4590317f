//! `cargo xtask gen kinds`: joins Kubernetes' OpenAPI document, Go types and proto files into the kinds table of `quilt-objects`.
//!
//! Inputs are given as paths, nothing is fetched, and only facts are written: names, numbers, types, topologies, defaults. A field known
//! to one source and not to the others fails the run unless the overrides name it.

mod emit;
mod go;
mod join;
mod overrides;
mod proto;
mod swagger;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

/// Arguments of `cargo xtask gen kinds`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kubernetes version the inputs belong to, such as 1.36; names the files written.
    #[arg(long)]
    version: String,
    /// OpenAPI v2 document (`swagger.json`).
    #[arg(long)]
    swagger: PathBuf,
    /// Checkouts of the Go repositories `api`, `apimachinery`, `apiextensions-apiserver` and `kube-aggregator`; the folder names count.
    #[arg(long, num_args = 1.., required = true)]
    go_types: Vec<PathBuf>,
    /// Folder with the `.proto` files, laid out by import path.
    #[arg(long)]
    protos: PathBuf,
    /// Own additions: short names, categories, selectable fields, storage aliases, exceptions.
    #[arg(long)]
    overrides: PathBuf,
    /// Folder to write `v<version>.types` and `v<version>.kinds` to.
    #[arg(long)]
    out: PathBuf,
    /// Write nothing; fail when the files there are not what the inputs give.
    #[arg(long)]
    check: bool,
}

/// Runs the generator.
pub(crate) fn run(args: &Args) -> Result<()> {
    let overrides = overrides::Overrides::read(&args.overrides)?;
    let document = swagger::Document::read(&args.swagger)?;
    let mut packages = go::Packages::default();
    for folder in &args.go_types {
        packages.read(folder).with_context(|| format!("Go types in {}", folder.display()))?;
    }
    let messages = proto::Messages::read(&args.protos)?;
    let joined = join::join(&document, &packages, &messages, &overrides)?;
    if !joined.problems.is_empty() {
        bail!(
            "the sources disagree; fix the generator or list exceptions in the overrides:\n{}",
            joined.problems.join("\n")
        );
    }
    let types = emit::types(&args.version, &joined);
    let kinds = emit::kinds(&args.version, &document, &joined, &overrides)?;
    for (ending, text) in [("types", types), ("kinds", kinds)] {
        let path = args.out.join(format!("v{}.{ending}", args.version));
        if args.check {
            let present = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            ensure!(present == text, "{} is not what the inputs give: run without --check", path.display());
        } else {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}
