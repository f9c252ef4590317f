//! Damage of a state: how it is told from other failures, what is kept of it for the next start, and where the damaged
//! files go.
//!
//! A state that has once shown a wrong byte is not gone on with, whatever else in it may be whole: it is set aside, and
//! made anew from a snapshot. That is a matter of the state alone; the log and the vote, which others rely on, are not
//! touched. Knows no row.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use quilt_state::{Family, StoreError};
use rocksdb::ErrorKind;

use crate::{files, home};

/// In the directory of the states: why the one in use is not gone on with. There until another has taken its place.
const MARK: &str = "DAMAGED";

/// Where the last damaged state is kept for whoever wants to look at it.
const ASIDE: &str = "damaged";

/// Bytes of a key in a message.
const KEY_BYTES_SHOWN: usize = 160;

/// What is known of the damage of one replica's state. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    found: Arc<Mutex<Option<String>>>,
    home: Option<PathBuf>,
}

impl Health {
    /// Of the state in a data directory.
    pub(crate) fn of(home: &Path) -> Self {
        Self { found: Arc::default(), home: Some(home.to_owned()) }
    }

    /// Of a state that is no replica's: nothing is kept of its damage.
    pub(crate) fn unkept() -> Self {
        Self { found: Arc::default(), home: None }
    }

    /// What was found first.
    pub(crate) fn damage(&self) -> Option<String> {
        self.found.lock().clone()
    }

    /// An error of the database, as an error of the store; damage is kept.
    pub(crate) fn failed(&self, family: Option<Family>, key: &[u8], error: &rocksdb::Error) -> StoreError {
        let text = error.to_string();
        if is_damage(error) {
            let family = family.map_or_else(|| "all families".to_owned(), |family| format!("family {}", family.name()));
            let near = if key.is_empty() { String::new() } else { format!(", at or behind key {}", readable(key)) };
            self.condemn(&format!("{family}{near}: {text}"));
        }
        StoreError(text)
    }

    /// The state is not what was written. Noted once, here and on disk.
    pub(crate) fn condemn(&self, what: &str) {
        let mut found = self.found.lock();
        if found.is_some() {
            return;
        }
        *found = Some(what.to_owned());
        tracing::error!(what, "the state is damaged; it is not gone on with, and made anew from a snapshot");
        if let Some(home) = &self.home
            && let Err(error) = mark(home, what)
        {
            tracing::error!(%error, "the damage could not be noted on disk");
        }
    }

    /// Another state has taken the place of the damaged one.
    pub(crate) fn replaced(&self) -> io::Result<()> {
        if let Some(home) = &self.home {
            clear(home)?;
        }
        *self.found.lock() = None;
        Ok(())
    }
}

/// Whether an error says that bytes are not what was written. A full disk, a missing right or too many open files are
/// none: trying again can help.
pub(crate) fn is_damage(error: &rocksdb::Error) -> bool {
    let gone = || ["No such file", "Input/output error"].iter().any(|hint| error.as_ref().contains(hint));
    error.kind() == ErrorKind::Corruption || (error.kind() == ErrorKind::IOError && gone())
}

fn readable(key: &[u8]) -> String {
    let shown = key.get(..KEY_BYTES_SHOWN).unwrap_or(key);
    shown.escape_ascii().to_string().replace("\\x00", "/")
}

/// Notes on disk that the state in use is not gone on with.
pub(crate) fn mark(home: &Path, what: &str) -> io::Result<()> {
    files::replace(&home::states(home).join(MARK), what.as_bytes())
}

/// Why the state in use is not gone on with, if it is not.
pub(crate) fn marked(home: &Path) -> io::Result<Option<String>> {
    let mark = files::read_if_present(&home::states(home).join(MARK))?;
    Ok(mark.map(|text| String::from_utf8_lossy(&text).into_owned()))
}

fn clear(home: &Path) -> io::Result<()> {
    match std::fs::remove_file(home::states(home).join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => files::sync_dir(&home::states(home)),
    }
}

/// Moves everything that is there of states out of the way, in the place of what was moved there before. Nothing when
/// there is nothing.
pub(crate) fn set_aside(home: &Path) -> io::Result<Option<PathBuf>> {
    let states = home::states(home);
    let dirs = || -> io::Result<Vec<String>> {
        Ok(files::names(&states)?.into_iter().filter(|name| states.join(name).is_dir()).collect())
    };
    // A crash in between leaves the mark and some of the directories: the rest goes the next time.
    let pointer = home::pointer(home);
    let aside = home.join(ASIDE);
    if pointer.exists() {
        files::remove_dir(&aside)?;
        files::create_dir(&aside)?;
        std::fs::rename(&pointer, aside.join("CURRENT"))?;
        files::sync_dir(&states)?;
    }
    let mut any = false;
    for name in dirs()? {
        files::create_dir(&aside)?;
        let to = aside.join(&name);
        files::remove_dir(&to)?;
        std::fs::rename(states.join(&name), to)?;
        any = true;
    }
    files::sync_dir(&states)?;
    files::sync_dir(home)?;
    Ok(any.then_some(aside))
}
