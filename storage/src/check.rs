//! Offline check: reads everything in a data directory that no process uses and says what does not fit.
//!
//! Reading is enough to find rot, since every block carries a checksum. Changes nothing.

use std::path::{Path, PathBuf};

use quilt_state::Family;
use quilt_state::audit::audit;
use rocksdb::{DB, IteratorMode, ReadOptions};

use crate::damage::{self, Health};
use crate::db::{self, Memory};
use crate::home::{self, Home, HomeError};
use crate::log::{
    Loss, Tail, check_entries, damage_in_manifest, damaged_at, inspect, is_salvageable, loss_of, mark_of,
};
use crate::snapshot::{self, io_error, machine_state};
use crate::state::{RocksStore, cf};

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Log entries read.
    pub log_entries: u64,
    /// State rows read.
    pub state_rows: u64,
    /// Last log index applied to the state.
    pub applied_index: u64,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// What the next start makes of it.
    pub remedy: Remedy,
}

/// What comes of damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remedy {
    /// A start sets what is damaged aside and makes it good, from what is whole here or from a peer.
    #[default]
    Start,
    /// A start refuses: what this replica has promised is not known any more, or whose data it is.
    Replace,
}

/// Reads a whole data directory.
///
/// # Errors
/// The directory is not one, or of a newer format. Damage inside is in the report.
pub fn check(dir: &Path) -> Result<Report, HomeError> {
    let mut report = Report::default();
    if Home::identity_of(dir)?.is_none() {
        report.problems.push(format!("{} holds no data of a replica", dir.display()));
        report.remedy = Remedy::Replace;
        return Ok(report);
    }
    match inspect(&dir.join("log")) {
        Ok(Tail::Whole) => {}
        Ok(Tail::Torn(cut)) => {
            tracing::info!(file = %cut.file.display(), at = cut.end, "the last write of the log is torn; a start cuts it off");
        }
        Ok(Tail::Damaged { file, at }) => {
            report.problems.push(format!("log: {}", damaged_at(&file, at)));
        }
        Err(error) => report.problems.push(format!("log: {error}")),
    }
    match db::open_log_read_only(&dir.join("log")) {
        Ok(db) => {
            match check_entries(&db) {
                Ok(entries) => report.log_entries = entries,
                Err(error) => report.problems.push(format!("log: {error}")),
            }
            match loss_of(&db) {
                Ok(Some(Loss::Upto(index))) => {
                    report.problems.push(format!("log: entries up to {index} were lost and are still to be made good"));
                }
                Ok(Some(Loss::Unknown)) => {
                    report.problems.push("log: what it held was lost and is still to be made good".to_owned());
                }
                Ok(None) | Err(_) => {}
            }
        }
        Err(error) => report.problems.push(format!("log: {error}")),
    }
    let state = current(dir);
    for (what, database) in [("log", &dir.join("log")), ("state", &state)] {
        if let Some(damage) = damage_in_manifest(database).map_err(io_error(database))? {
            report.problems.push(format!("{what}: {damage}"));
        }
    }
    match machine_state(&state, &Memory::default()) {
        Ok(machine) => report.applied_index = machine.map_or(0, |machine| machine.applied_index),
        Err(error) => report.problems.push(format!("state: {error}")),
    }
    match db::open_state_read_only(&state, &Memory::default()) {
        Ok(db) => {
            for family in Family::ALL {
                match count_rows(&db, family) {
                    Ok(rows) => report.state_rows += rows,
                    Err(error) => report.problems.push(format!("state, family {}: {error}", family.name())),
                }
            }
            // What does not read was named just now.
            if let Ok(audited) = audit(&RocksStore::new(db, Health::unkept()))
                && !audited.fits()
            {
                let (found, kept) = (audited.found, audited.kept);
                report.problems.push(format!("state: its rows have the hash {found}, and {kept} was kept"));
            }
        }
        Err(error) => report.problems.push(format!("state: {error}")),
    }
    if let Some(why) = mark_of(&dir.join("log")) {
        report.problems.push(format!("log: found damaged while it was in use: {why}"));
    }
    let log_is_damaged = report.problems.iter().any(|problem| problem.starts_with("log: "));
    if log_is_damaged && !is_salvageable(&dir.join("log")).map_err(io_error(dir))? {
        report.problems.push("log: its vote is lost as well".to_owned());
        report.remedy = Remedy::Replace;
    }
    if let Some(why) = damage::marked(dir).map_err(io_error(dir))? {
        report.problems.push(format!("state: found damaged while it was in use: {why}"));
    }
    report.problems.extend(snapshot::damaged_files(dir).map_err(io_error(dir))?);
    Ok(report)
}

fn current(dir: &Path) -> PathBuf {
    let name = std::fs::read_to_string(home::pointer(dir)).unwrap_or_default();
    home::states(dir).join(name.trim())
}

fn count_rows(db: &DB, family: Family) -> Result<u64, String> {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_total_order_seek(true);
    let family = cf(db, family).map_err(|error| error.to_string())?;
    let mut rows = 0;
    for row in db.iterator_cf_opt(family, options, IteratorMode::Start) {
        row.map_err(|error| error.to_string())?;
        rows += 1;
    }
    Ok(rows)
}
