//! Where a replica's credentials lie, and how they are written: private from the first byte, complete or not at all.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use quilt_api::roster::PemPair;

/// Files of one replica, below its data directory.
pub(crate) struct ReplicaFiles {
    root: PathBuf,
}

impl ReplicaFiles {
    /// The files below `data_dir`.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.to_path_buf() }
    }

    /// CA that signed the serving certificates.
    pub(crate) fn serving_ca(&self) -> PathBuf {
        self.root.join("tls/ca.crt")
    }

    /// Its private key, where it was made: the first leader takes it into the control plane's keeping.
    pub(crate) fn serving_ca_key(&self) -> PathBuf {
        self.root.join("tls/ca.key")
    }

    /// Likewise of the peer CA.
    pub(crate) fn peer_ca_key(&self) -> PathBuf {
        self.root.join("tls/peer-ca.key")
    }

    /// CA that replicas trust among each other.
    pub(crate) fn peer_ca(&self) -> PathBuf {
        self.root.join("tls/peer-ca.crt")
    }

    /// Certificate and key the API listener shows.
    pub(crate) fn serving(&self) -> (PathBuf, PathBuf) {
        (self.root.join("tls/serving.crt"), self.root.join("tls/serving.key"))
    }

    /// Certificate and key shown to other replicas.
    pub(crate) fn peer(&self) -> (PathBuf, PathBuf) {
        (self.root.join("tls/peer.crt"), self.root.join("tls/peer.key"))
    }

    /// The key under which secrets are sealed (architecture D5).
    pub(crate) fn root_key(&self) -> PathBuf {
        self.root.join("root.key")
    }

    /// What the first leader puts into an empty state.
    pub(crate) fn bootstrap(&self) -> PathBuf {
        self.root.join("bootstrap.json")
    }
}

/// Makes a directory and its parents, readable by the owner only.
pub(crate) fn private_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make directory '{}'", path.display()))
}

/// Writes a file atomically with mode 0600, durable when it returns.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    write(path, content, 0o600)
}

/// Writes a file atomically with mode 0644, durable when it returns.
pub(crate) fn write_public(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    write(path, content, 0o644)
}

fn write(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    private_dir(path.parent().context("a file needs a directory")?)?;
    replace(path, mode, std::iter::once(Ok(content)))
}

/// Writes a private file piece by piece, to be seen whole or not at all.
pub(crate) fn write_pieces(
    path: &Path,
    pieces: impl Iterator<Item = anyhow::Result<bytes::Bytes>>,
) -> anyhow::Result<()> {
    replace(path, 0o600, pieces)
}

fn replace(
    path: &Path,
    mode: u32,
    pieces: impl Iterator<Item = anyhow::Result<impl AsRef<[u8]>>>,
) -> anyhow::Result<()> {
    let mut name = path.file_name().context("a file needs a name")?.to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = || -> anyhow::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        // One that was left behind has the mode it was made with.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        for piece in pieces {
            file.write_all(piece?.as_ref())?;
        }
        file.sync_all()?;
        fs::rename(&new, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(fs::File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()?)
    };
    let done = written();
    if done.is_err() {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_file(&new);
    }
    done.with_context(|| format!("cannot write '{}'", path.display()))
}

/// Writes certificate and key.
pub(crate) fn write_pair((certificate, key): &(PathBuf, PathBuf), pair: &PemPair) -> anyhow::Result<()> {
    write_private(key, pair.key.as_bytes())?;
    write_public(certificate, pair.certificate.as_bytes())
}

/// Reads certificate and key.
pub(crate) fn read_pair((certificate, key): &(PathBuf, PathBuf)) -> anyhow::Result<PemPair> {
    Ok(PemPair { certificate: read(certificate)?, key: read_private(key)? })
}

/// Reads a text file, naming it when that fails.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read '{}'", path.display()))
}

/// Reads a private file, refusing one that others may read.
pub(crate) fn read_private(path: &Path) -> anyhow::Result<String> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read '{}'", path.display()))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        anyhow::bail!(
            "file '{path}' has mode {mode:04o} and may be read by others\nhint: chmod 600 {path}",
            path = path.display()
        );
    }
    read(path)
}
