//! [`Manifest`]: what a snapshot holds: whose state, at which position, in which files. The first thing sent.
//!
//! It comes from another machine, so nothing in it is believed before [`Manifest::accept`]. Knows no file system.

use bytes::Bytes;
use prost::Message;
use quilt_proto::state::MachineState;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::format::{FORMAT, Stored};
use crate::log::LogPosition;

const MAGIC: &[u8; 8] = b"QLTSNAP1";

/// Files in one snapshot: 64 MiB each, so this is far above any disk of the day.
const FILES_MAX: usize = 100_000;

/// Bytes of an encoded manifest: [`FILES_MAX`] entries fit.
const BYTES_MAX: usize = 16 << 20;

/// What a snapshot holds.
#[derive(Clone, PartialEq, Message)]
pub struct Manifest {
    /// On-disk format of the sender.
    #[prost(uint64, tag = "1")]
    pub format: u64,
    /// Control plane.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// Raised by every restore.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// Last revision in it.
    #[prost(uint64, tag = "4")]
    pub revision: u64,
    /// Last log entry applied to it.
    #[prost(uint64, tag = "5")]
    pub index: u64,
    /// That entry's term.
    #[prost(uint64, tag = "6")]
    pub term: u64,
    /// That entry's leader.
    #[prost(uint64, tag = "7")]
    pub leader: u64,
    /// The agreement layer's membership record as of that entry, opaque here.
    #[prost(bytes = "bytes", tag = "8")]
    pub membership: Bytes,
    /// High half of the state's hash.
    #[prost(uint64, tag = "9")]
    pub hash_high: u64,
    /// Low half of the state's hash.
    #[prost(uint64, tag = "10")]
    pub hash_low: u64,
    /// Its files.
    #[prost(message, repeated, tag = "11")]
    pub files: Vec<ManifestFile>,
    /// Keys that are there.
    #[prost(uint64, tag = "12")]
    pub live_keys: u64,
    /// Wall time of the last entry in it, in milliseconds since the Unix epoch.
    #[prost(uint64, tag = "13")]
    pub wall_ms: u64,
}

/// One file of a snapshot.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ManifestFile {
    /// Its name once installed.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its length.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    /// SHA-256 of its content: its name while it travels.
    #[prost(bytes = "bytes", tag = "3")]
    pub sha256: Bytes,
}

/// A manifest that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not a manifest, or not as it was written.
    #[error("the snapshot manifest is damaged: {0}")]
    Damaged(String),
    /// It was made by a newer version.
    #[error("the snapshot has format {found}, and this quiltd reads up to format {FORMAT}: upgrade this replica")]
    Newer {
        /// Its format.
        found: u64,
    },
    /// It was made by a version from before the first release.
    #[error("the snapshot has format {found}, and this quiltd reads format {FORMAT} only")]
    Older {
        /// Its format.
        found: u64,
    },
    /// It is of another control plane.
    #[error("the snapshot is of control plane {found}, this replica belongs to {expected}")]
    Foreign {
        /// Whose it is.
        found: String,
        /// Who we are.
        expected: String,
    },
    /// It is of another epoch: before or after a restore.
    #[error("the snapshot is of epoch {found}, this replica of epoch {expected}")]
    Epoch {
        /// Its epoch.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// It names a file no snapshot has.
    #[error("the snapshot names a file {0:?}, which no snapshot has")]
    FileName(String),
    /// There is no file of this number.
    #[error("the snapshot has {files} files, there is no number {file}")]
    NoFile {
        /// The number asked for.
        file: usize,
        /// How many there are.
        files: usize,
    },
}

impl Manifest {
    /// The manifest of a state, without its files.
    pub(crate) fn of(machine: &MachineState, stored: &Stored) -> Self {
        Self {
            format: FORMAT,
            cluster: stored.identity.cluster.clone(),
            epoch: stored.epoch,
            revision: machine.revision,
            index: machine.applied_index,
            term: machine.applied_term,
            leader: machine.applied_leader,
            membership: machine.membership.clone(),
            hash_high: machine.hash_high,
            hash_low: machine.hash_low,
            files: Vec::new(),
            live_keys: machine.live_keys,
            wall_ms: machine.wall_ms,
        }
    }

    /// Name of the snapshot: ascends with the position.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:020}-{:010}-{}", self.index, self.term, self.leader)
    }

    /// Last log entry applied to the state.
    #[must_use]
    pub const fn position(&self) -> LogPosition {
        LogPosition { index: self.index, term: self.term, leader: self.leader }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Whether both describe the same state, in whatever files.
    pub(crate) fn same_state(&self, other: &Self) -> bool {
        let of = |m: &Self| (m.position(), m.revision, m.hash_high, m.hash_low);
        of(self) == of(other) && self.membership == other.membership
    }

    /// One of its files.
    pub(crate) fn file(&self, file: usize) -> Result<&ManifestFile, ManifestError> {
        self.files.get(file).ok_or(ManifestError::NoFile { file, files: self.files.len() })
    }

    /// Whether a file of a checkpoint belongs into a snapshot. The rest a database makes again when it opens.
    pub(crate) fn sends(name: &str) -> bool {
        let digits = |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
        name == "CURRENT"
            || name.strip_suffix(".sst").is_some_and(digits)
            || name.strip_prefix("MANIFEST-").is_some_and(digits)
    }

    /// The bytes to store or send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let body = self.encode_to_vec();
        [MAGIC, digest(&SHA256, &body).as_ref(), &body].concat().into()
    }

    /// Reads [`Manifest::encode`]'s bytes.
    ///
    /// # Errors
    /// They are not a manifest, or not as they were written.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let damaged = |reason: &str| ManifestError::Damaged(reason.into());
        if bytes.len() > BYTES_MAX {
            return Err(damaged("it is too long"));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin like one"))?;
        let (sum, body) = rest.split_at_checked(SHA256_OUTPUT_LEN).ok_or_else(|| damaged("it is too short"))?;
        if digest(&SHA256, body).as_ref() != sum {
            return Err(damaged("its checksum does not match"));
        }
        Message::decode(body).map_err(|error| ManifestError::Damaged(error.to_string()))
    }

    /// Whether a replica may take this snapshot.
    pub(crate) fn accept(&self, stored: &Stored) -> Result<(), ManifestError> {
        let expected = &stored.identity.cluster;
        if &self.cluster != expected {
            return Err(ManifestError::Foreign { found: self.cluster.clone(), expected: expected.clone() });
        }
        if self.epoch != stored.epoch {
            return Err(ManifestError::Epoch { found: self.epoch, expected: stored.epoch });
        }
        self.check_files()
    }

    /// Whether this release can read the snapshot, and its files are ones that a snapshot has.
    pub(crate) fn check_files(&self) -> Result<(), ManifestError> {
        if self.format > FORMAT {
            return Err(ManifestError::Newer { found: self.format });
        }
        if self.format < FORMAT {
            return Err(ManifestError::Older { found: self.format });
        }
        if self.files.len() > FILES_MAX {
            return Err(ManifestError::Damaged("it names too many files".into()));
        }
        let mut names = std::collections::BTreeSet::new();
        for file in &self.files {
            if !Self::sends(&file.name) || !names.insert(&file.name) {
                return Err(ManifestError::FileName(file.name.clone()));
            }
            if file.sha256.len() != SHA256_OUTPUT_LEN {
                return Err(ManifestError::Damaged(format!("the checksum of {} has a wrong length", file.name)));
            }
        }
        Ok(())
    }
}

impl ManifestFile {
    /// The checksum as text.
    #[must_use]
    pub fn checksum(&self) -> String {
        hex::encode(&self.sha256)
    }
}
