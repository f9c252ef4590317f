//! The on-disk format: its version, whose data a directory holds, and the text of a refusal. Knows no row.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::files;

/// Version of everything under a data directory. Raised when an older binary could no longer read it.
pub const FORMAT: u64 = 3;

const FILE: &str = "identity";

/// Whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the control plane, made when it was founded.
    pub cluster: String,
    /// The replica within it, never reused.
    pub replica: u64,
}

/// A directory that cannot be used as asked. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The data was written by a newer version.
    #[error(
        "{dir} holds data of format {found}, and this quiltd reads up to format {FORMAT}: \
         start the newer quiltd that wrote it, or restore a backup made before the upgrade into an empty directory"
    )]
    Newer {
        /// The data directory.
        dir: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The data was written by a version from before the first release.
    #[error(
        "{dir} holds data of format {found}, and this quiltd reads format {FORMAT} only: \
         start over with an empty directory"
    )]
    Older {
        /// The data directory.
        dir: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The data belongs to somebody else.
    #[error(
        "{dir} belongs to replica {} of control plane {}, not to replica {} of {}: \
         check the data directory, or join with a new replica id and an empty directory",
        found.replica, found.cluster, expected.replica, expected.cluster
    )]
    Foreign {
        /// The data directory.
        dir: PathBuf,
        /// Who it belongs to.
        found: Identity,
        /// Who was started on it.
        expected: Identity,
    },
    /// The identity file cannot be understood.
    #[error("{path} is damaged: {reason}; remove this replica from the control plane and join with an empty directory")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A name that does not fit into the file.
    #[error("control plane id {0:?} is not usable: letters, digits, '-', '_' and '.' only, 1 to 128 of them")]
    Name(String),
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the identity file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) identity: Identity,
    /// Raised by every restore; replicas of an older epoch are fenced.
    pub(crate) epoch: u64,
}

/// Reads whose data a directory holds; nothing when it holds none.
pub(crate) fn read(dir: &Path) -> Result<Option<Stored>, FormatError> {
    let path = dir.join(FILE);
    let content = files::read_if_present(&path).map_err(|source| FormatError::Io { path: path.clone(), source })?;
    let Some(content) = content else { return Ok(None) };
    let damaged = |reason: &str| FormatError::Damaged { path: path.clone(), reason: reason.into() };
    let text = String::from_utf8(content).map_err(|_| damaged("it is not text"))?;
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(" = ")).collect();
    let number = |name: &str| -> Result<u64, FormatError> {
        let value = fields.get(name).ok_or_else(|| damaged(&format!("it has no field {name:?}")))?;
        value.parse().map_err(|_| damaged(&format!("{name:?} is not a number")))
    };
    // The format first: the other fields may mean something else in a newer one.
    let found = number("format")?;
    if found > FORMAT {
        return Err(FormatError::Newer { dir: dir.to_owned(), found });
    }
    if found < FORMAT {
        return Err(FormatError::Older { dir: dir.to_owned(), found });
    }
    let cluster = fields.get("cluster").ok_or_else(|| damaged("it has no field \"cluster\""))?;
    Ok(Some(Stored {
        identity: Identity { cluster: (*cluster).to_owned(), replica: number("replica")? },
        epoch: number("epoch")?,
    }))
}

/// Claims a directory.
pub(crate) fn write(dir: &Path, stored: &Stored) -> Result<(), FormatError> {
    let cluster = &stored.identity.cluster;
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if cluster.is_empty() || cluster.len() > 128 || !cluster.chars().all(usable) {
        return Err(FormatError::Name(cluster.clone()));
    }
    let path = dir.join(FILE);
    let (replica, epoch) = (stored.identity.replica, stored.epoch);
    let text = format!("format = {FORMAT}\ncluster = {cluster}\nreplica = {replica}\nepoch = {epoch}\n");
    files::replace(&path, text.as_bytes()).map_err(|source| FormatError::Io { path, source })
}

/// Compares what a directory says with who was started on it.
pub(crate) fn expect(dir: &Path, stored: &Stored, expected: &Identity) -> Result<(), FormatError> {
    if &stored.identity == expected {
        return Ok(());
    }
    Err(FormatError::Foreign { dir: dir.to_owned(), found: stored.identity.clone(), expected: expected.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A newer or an older format, a foreign owner and a damaged file are refused, each with what to do; a name that would break
    /// the file is never written.
    #[test]
    fn refusals() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: "plane-1".into(), replica: 2 };
        let stored = Stored { identity: identity.clone(), epoch: 7 };
        assert_eq!(read(dir.path()).unwrap(), None);
        write(dir.path(), &stored).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(stored.clone()));
        expect(dir.path(), &stored, &identity).unwrap();
        let other = Identity { cluster: "plane-1".into(), replica: 3 };
        let text = expect(dir.path(), &stored, &other).unwrap_err().to_string();
        assert!(text.contains("belongs to replica 2 of control plane plane-1, not to replica 3"), "{text}");

        std::fs::write(dir.path().join(FILE), "format = 9\nsomething = else\n").unwrap();
        let text = read(dir.path()).unwrap_err().to_string();
        assert!(text.contains("format 9") && text.contains("newer quiltd"), "{text}");
        std::fs::write(dir.path().join(FILE), format!("format = {FORMAT}\ncluster = a\nreplica = x\nepoch = 0\n"))
            .unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("\"replica\" is not a number"));

        std::fs::write(dir.path().join(FILE), "format = 1\n").unwrap();
        let text = read(dir.path()).unwrap_err().to_string();
        assert!(text.contains("format 1") && text.contains("empty directory"), "{text}");

        let bad = Stored { identity: Identity { cluster: "a\nreplica = 5".into(), replica: 1 }, epoch: 0 };
        assert!(matches!(write(dir.path(), &bad), Err(FormatError::Name(_))));
    }
}
