//! Bytes of a stopped replica's files change, as on a disk that rots. The replica must notice before anybody is shown one of them: it
//! refuses to start, or stops, or what it serves is right all the same. One that has stopped is replaced, as the operator's page says.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{PATIENCE, Proof, Whom, members};
use crate::oracle::Promise;
use crate::random::Random;
use crate::rig::{Rig, State};

/// A replica that is asked to stop does so within this.
const STOPS: Duration = Duration::from_secs(20);

/// Which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Tables of the state.
    State,
    /// The raft log, tables and write-ahead log.
    Log,
}

impl Files {
    fn place(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Log => "log",
        }
    }

    fn holds(self, path: &Path) -> bool {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!((self, ending), (_, Some("sst")) | (Self::Log, Some("log")))
    }
}

impl Display for Files {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::State => f.write_str("rot in the state"),
            Self::Log => f.write_str("rot in the log"),
        }
    }
}

/// A replica with changed files.
#[derive(Debug)]
pub struct Rot {
    id: u16,
    changed: Vec<String>,
}

impl Rot {
    pub(super) async fn begin(rig: &mut Rig, random: &mut Random, whom: Whom, files: Files) -> Result<Self> {
        let id = whom.one(rig, random).await?;
        // Stopped in order, so that the state is in tables.
        rig.at_mut(id)?.stop(STOPS).await?;
        rig.network().owners().remove(id);
        let mut found = Vec::new();
        collect(&rig.at(id)?.data().join(files.place()), &mut found)?;
        found.retain(|path| files.holds(path) && fs::metadata(path).is_ok_and(|about| about.len() > 0));
        ensure!(!found.is_empty(), "replica {id} has no file to rot");
        found.sort();
        let mut changed = Vec::new();
        for path in &found {
            changed.push(flip(path, random)?);
        }
        rig.launch(id)?;
        Ok(Self { id, changed })
    }

    pub(super) fn is_about(&self, id: u16) -> bool {
        self.id == id
    }

    pub(super) async fn end(self, rig: &mut Rig) -> Result<Proof> {
        let mut proof = Proof::took(format!("changed: {}", self.changed.join(", ")));
        let seat = rig.at_mut(self.id)?;
        let ended = seat.ended()?;
        if seat.state() != State::Absent {
            proof.took.push(format!("replica {} serves: its answers are judged as everybody's", self.id));
            return Ok(proof);
        }
        rig.network().owners().remove(self.id);
        let log = fs::read_to_string(rig.at(self.id)?.log()).unwrap_or_default();
        let words = ended.map_or_else(|| last_lines(&log), |ended| ended.last_words);
        if log.contains("panicked at") {
            let told = format!("replica {} panicked over damaged files: {words}", self.id);
            proof = proof.broken(Promise::G13, "damage is told, not tripped over", told);
        }
        proof.took.push(format!("replica {} has stopped: {words}", self.id));
        members::replace(rig, self.id, PATIENCE).await.context("a replica with damaged files is replaced")?;
        Ok(proof)
    }
}

fn last_lines(log: &str) -> String {
    log.lines().rev().take(2).collect::<Vec<_>>().join(" | ")
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Changes one byte in the middle part of a file, where its rows are.
fn flip(path: &Path, random: &mut Random) -> Result<String> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let at = random.within(length / 10..(length / 2).max(length / 10 + 1));
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x10], at)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("byte {at} of {length} of {name}"))
}
