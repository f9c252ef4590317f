//! Bytes of replicas' files change, as on disks that rot, of each at another place. A replica must notice before anybody is shown one of
//! them: it refuses to start, or stops, or what it serves is right all the same. Whatever is damaged is mended by the next start, its log
//! as well as its state, as long as the others are a majority that knows what it had acknowledged. Where they are not, an operator goes on
//! with [a survivor](super::quorum).

use std::fmt::{self, Display, Formatter};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::debt::Debt;
use super::quorum::{self, Witness};
use super::{PATIENCE, Proof, Whom, serving};
use crate::oracle::Promise;
use crate::random::Random;
use crate::rig::{Rig, State};

/// Between two looks at a replica that may stop or come back.
const LOOK: Duration = Duration::from_millis(100);

/// Which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Tables of the state.
    State,
    /// The raft log, tables and write-ahead log: where it ended is not known any more.
    Log,
    /// The raft logs, of one all as above, of each other the largest table: where those end is known.
    Logs,
}

/// What a replica says that has met a log it cannot go on with.
const SET_ASIDE: &str = "the damaged log was set aside";

impl Files {
    fn place(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Log | Self::Logs => "log",
        }
    }

    fn holds(self, path: &Path) -> bool {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!((self, ending), (_, Some("sst")) | (Self::Log, Some("log")))
    }

    /// What changes of the files of the replica in this place among those that are hit.
    fn of(self, place: usize) -> Self {
        if self == Self::Logs && place == 0 { Self::Log } else { self }
    }
}

impl Display for Files {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::State => f.write_str("rot in the state"),
            Self::Log => f.write_str("rot in the log"),
            Self::Logs => f.write_str("rot at different places of the logs"),
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
    /// Those whose log's end is lost, and how much they had said before.
    ends_lost: Vec<(u16, usize)>,
    /// The others are no majority: nobody is left who could say what these had acknowledged.
    beyond_repair: bool,
    witness: Witness,
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
        let mut ids = whom.choose(rig, random).await?;
        if files == Files::Logs {
            // Anybody may be the one whose log has lost its end.
            let place = usize::try_from(random.below(ids.len() as u64))?;
            ids.swap(0, place);
            into_tables(rig, &ids).await?;
        }
        let majority = rig.ids().len() / 2 + 1;
        let mut witness = Witness::default();
        for id in &ids {
            // Stopped in order, so that the state is in tables.
            super::stop(rig, *id).await?;
            if files == Files::Log && rig.running().len() >= majority {
                // From now on nothing is acknowledged that a survivor has not stored.
                witness.write(rig).await?;
            }
        }
        if when == When::Running {
            start(rig, &ids)?;
            serving(rig, &rig.running()).await?;
        }
        let (mut changed, mut ends_lost) = (Vec::new(), Vec::new());
        for (place, id) in ids.iter().enumerate() {
            let files = files.of(place);
            for path in chosen(&rig.at(*id)?.data().join(files.place()), files)? {
                match flip(&path, random) {
                    Ok(what) => changed.push(format!("replica {id}: {what}")),
                    // A replica that runs puts files together and removes them.
                    Err(error) => ensure!(when == When::Running && !path.exists(), "{error:#}"),
                }
            }
            // One that runs reads its write-ahead log when it is started again.
            if files == Files::Log && when == When::Stopped {
                ends_lost.push((*id, fs::read(rig.at(*id)?.log()).map_or(0, |log| log.len())));
            }
        }
        if when == When::Stopped {
            start(rig, &ids)?;
        }
        let beyond_repair = rig.ids().len() - ends_lost.len() < majority;
        Ok(Self { ids, ends_lost, beyond_repair, witness, changed })
    }

    pub(super) fn is_about(&self, id: u16) -> bool {
        self.ids.contains(&id)
    }

    pub(super) async fn end(self, rig: &mut Rig) -> Result<Proof> {
        let mut proof = changed(&self.changed);
        if self.beyond_repair {
            let damaged: Vec<u16> = self.ends_lost.iter().map(|(id, _)| *id).collect();
            proof = quorum::recover(rig, &damaged, &self.witness, proof).await?;
            return Ok(self.ids.iter().fold(proof, |proof, id| unless_panicked(rig, *id, proof)));
        }
        for id in &self.ids {
            proof = after(rig, *id, proof).await?;
        }
        for (id, before) in &self.ends_lost {
            proof = noticed(rig, *id, *before, proof)?;
        }
        Ok(proof)
    }
}

/// Bytes of files that were there changed: of one that a running replica has removed meanwhile none does.
fn changed(bytes: &[String]) -> Proof {
    match bytes {
        [] => Proof::missing("every file was removed before a byte of it was changed"),
        bytes => Proof::took(format!("changed: {}", bytes.join(", "))),
    }
}

/// What has become of one of them.
async fn after(rig: &mut Rig, id: u16, mut proof: Proof) -> Result<Proof> {
    let debt = Debt::of(rig, PATIENCE, Promise::G13, "what is damaged is mended where the others have it")?;
    let mut said = None;
    loop {
        if let Some(words) = gone(rig, id)? {
            // Whoever looks after services starts it again, and it mends what it has lost.
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
        if let Some(error) = debt.over(&format!("replica {id} is not back: {}", said.as_deref().unwrap_or_default())) {
            return Err(error);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A log whose write-ahead part is damaged is not gone on with.
fn noticed(rig: &Rig, id: u16, before: usize, mut proof: Proof) -> Result<Proof> {
    let log = fs::read(rig.at(id)?.log())?;
    let since = String::from_utf8_lossy(log.get(before..).unwrap_or_default());
    let Some(line) = since.lines().find(|line| line.contains(SET_ASIDE)) else {
        let told = format!("replica {id} went on with a write-ahead log that is damaged");
        return Ok(proof.broken(Promise::G13, "damage of a write-ahead log is noticed", told));
    };
    proof.took.push(format!("replica {id} made its log good: {line}"));
    Ok(proof)
}

/// Puts what write-ahead logs hold into tables: a start does.
async fn into_tables(rig: &mut Rig, ids: &[u16]) -> Result<()> {
    for id in ids {
        super::stop(rig, *id).await?;
        rig.launch(*id)?;
        serving(rig, &[*id]).await?;
    }
    Ok(())
}

/// The files whose bytes change.
fn chosen(directory: &Path, files: Files) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(directory, &mut found)?;
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |about| about.len());
    found.retain(|path| files.holds(path) && size(path) > 0);
    ensure!(!found.is_empty(), "{} has no file to rot", directory.display());
    found.sort();
    if files == Files::Logs {
        // The others hold what a replica notes of its log beside the entries.
        found = found.into_iter().max_by_key(size).into_iter().collect();
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A fault that changed no byte took no effect.
    #[test]
    fn no_byte_is_no_rot() {
        assert_eq!(changed(&[]).missing.len(), 1);
        assert!(changed(&[]).took.is_empty());
        let some = changed(&["replica 1: byte 7 of 9 of 000012.sst".into()]);
        assert!(some.missing.is_empty() && some.took[0].contains("000012.sst"));
    }
}
