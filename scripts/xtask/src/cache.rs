//! Where things are kept that are slow to make and the same for every clone.

use std::env::var_os;
use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The cache: `$QUILTD_CACHE`, else `quiltd` in the user's cache directory.
pub(crate) fn dir() -> Result<PathBuf> {
    let path = |name: &str| var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = path("QUILTD_CACHE")
        .or_else(|| path("XDG_CACHE_HOME").map(|dir| dir.join("quiltd")))
        .or_else(|| path("HOME").map(|dir| dir.join(".cache/quiltd")))
        .context("no place for a cache: set HOME or QUILTD_CACHE")?;
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

/// Waits for the right to make one thing in the cache; held until the file is dropped.
pub(crate) fn lock(what: &str) -> Result<File> {
    let path = dir()?.join(format!("{what}.lock"));
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}
