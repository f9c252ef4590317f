//! Bytes of replicas' files change, as on disks that rot, of each at another place. A replica must notice before anybody is shown one of
//! them: it refuses to start, or stops, or what it serves is right all the same. A damaged state is mended by the next start; a replica
//! whose log is damaged and that has stopped is replaced, as the operator's page says.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{PATIENCE, Proof, Whom, members};
use crate::oracle::Promise;
use crate::random::Random;
use crate::rig::{Rig, State};
use crate::wait::within;

/// A replica that is asked to stop does so within this.
const STOPS: Duration = Duration::from_secs(20);

/// Between two looks at a replica that may stop or come back.
const LOOK: Duration = Duration::from_millis(100);

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

/// When bytes change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// While the replica is stopped.
    Stopped,
    /// While it runs.
    Running,
}

/// Replicas with changed files.
#[derive(Debug)]
pub struct Rot {
    ids: Vec<u16>,
    files: Files,
    changed: Vec<String>,
}

impl Rot {
    pub(super) async fn begin(
        rig: &mut Rig,
        random: &mut Random,
        whom: Whom,
        files: Files,
        when: When,
    ) -> Result<Self> {
        let ids = whom.choose(rig, random).await?;
        for id in &ids {
            // Stopped in order, so that the state is in tables.
            rig.at_mut(*id)?.stop(STOPS).await?;
            rig.network().owners().remove(*id);
        }
        if when == When::Running {
            start(rig, &ids)?;
            within(PATIENCE, "they serve", || rig.all_serve()).await?;
        }
        let mut changed = Vec::new();
        for id in &ids {
            let mut found = Vec::new();
            collect(&rig.at(*id)?.data().join(files.place()), &mut found)?;
            found.retain(|path| files.holds(path) && fs::metadata(path).is_ok_and(|about| about.len() > 0));
            ensure!(!found.is_empty(), "replica {id} has no file to rot");
            found.sort();
            for path in &found {
                match flip(path, random) {
                    Ok(what) => changed.push(format!("replica {id}: {what}")),
                    // A replica that runs puts files together and removes them.
                    Err(error) => ensure!(when == When::Running && !path.exists(), "{error:#}"),
                }
            }
        }
        if when == When::Stopped {
            start(rig, &ids)?;
        }
        Ok(Self { ids, files, changed })
    }

    pub(super) fn is_about(&self, id: u16) -> bool {
        self.ids.contains(&id)
    }

    pub(super) async fn end(self, rig: &mut Rig) -> Result<Proof> {
        let mut proof = Proof::took(format!("changed: {}", self.changed.join(", ")));
        for id in &self.ids {
            proof = self.after(rig, *id, proof).await?;
        }
        Ok(proof)
    }

    /// What has become of one of them.
    async fn after(&self, rig: &mut Rig, id: u16, mut proof: Proof) -> Result<Proof> {
        if let Some(words) = gone(rig, id)? {
            proof.took.push(format!("replica {id} has stopped: {words}"));
            if self.files == Files::Log {
                return replaced(rig, id, proof).await;
            }
            // Whoever looks after services starts it again, and it mends its state.
            rig.launch(id)?;
        }
        let begun = Instant::now();
        let mut said = None;
        while begun.elapsed() < PATIENCE {
            if let Some(words) = gone(rig, id)? {
                if self.files == Files::Log {
                    proof.took.push(format!("replica {id} has stopped: {words}"));
                    return replaced(rig, id, proof).await;
                }
                rig.launch(id)?;
                said = Some(words);
            }
            if rig.serves(id).await.is_ok() {
                proof.took.push(match said {
                    Some(words) => format!("replica {id} stopped, and serves again: {words}"),
                    None => format!("replica {id} serves: its answers are judged as everybody's"),
                });
                return Ok(unless_panicked(rig, id, proof));
            }
            tokio::time::sleep(LOOK).await;
        }
        let told = format!("replica {id} is not back within {PATIENCE:?}: {}", said.unwrap_or_default());
        Ok(proof.broken(Promise::G13, "a damaged state is mended where a good one exists", told))
    }
}

fn start(rig: &mut Rig, ids: &[u16]) -> Result<()> {
    ids.iter().try_for_each(|id| rig.launch(*id))
}

/// The last words of a replica that has ended.
fn gone(rig: &mut Rig, id: u16) -> Result<Option<String>> {
    let seat = rig.at_mut(id)?;
    let ended = seat.ended()?;
    if seat.state() != State::Absent {
        return Ok(None);
    }
    let log = fs::read_to_string(seat.log()).unwrap_or_default();
    rig.network().owners().remove(id);
    Ok(Some(ended.map_or_else(|| last_lines(&log), |ended| ended.last_words)))
}

/// What it says of itself belongs to the proof; that it has panicked is a broken promise.
fn unless_panicked(rig: &Rig, id: u16, mut proof: Proof) -> Proof {
    let log = rig.at(id).ok().and_then(|seat| fs::read_to_string(seat.log()).ok()).unwrap_or_default();
    let noticed = log.lines().filter(|line| line.contains("damaged")).count();
    proof.took.push(format!("replica {id} speaks of damage in {noticed} lines of its log"));
    match log.lines().find(|line| line.contains("panicked at")) {
        Some(line) => {
            let told = format!("replica {id} panicked over damaged files: {line}");
            proof.broken(Promise::G13, "damage is told, not tripped over", told)
        }
        None => proof,
    }
}

/// A replica whose log is damaged is replaced, as the operator's page says.
async fn replaced(rig: &mut Rig, id: u16, proof: Proof) -> Result<Proof> {
    let mut proof = unless_panicked(rig, id, proof);
    proof.took.push(members::replace(rig, id, PATIENCE).await.context("a replica with damaged files is replaced")?);
    Ok(proof)
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
