//! A history in a file: JSON, one record a line, so that it can be looked through with ordinary tools and judged again.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Collection, Epoch, History, Operation, Stream, Transaction};

/// Why a history cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum Damaged {
    /// The file cannot be read or written.
    #[error("the history's file cannot be used")]
    File(#[from] std::io::Error),
    /// A line is no record.
    #[error("line {line} is no record of a history")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A record cannot be written.
    #[error("a record cannot be written")]
    Record(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
enum Row {
    Seed(u64),
    Collection(Collection),
    Operation(Box<Operation>),
    Stream(Box<Stream>),
    Transaction(Transaction),
    Epoch(Epoch),
    Note(String, String),
}

/// Writes all of a history.
///
/// # Errors
/// When the file cannot be written.
pub fn save(history: &History, path: &Path) -> Result<(), Damaged> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut write = |row: &Row| -> Result<(), Damaged> {
        serde_json::to_writer(&mut file, row).map_err(Damaged::Record)?;
        Ok(file.write_all(b"\n")?)
    };
    write(&Row::Seed(history.seed))?;
    for collection in &history.collections {
        write(&Row::Collection(collection.clone()))?;
    }
    for (name, note) in &history.notes {
        write(&Row::Note(name.clone(), note.clone()))?;
    }
    for operation in &history.operations {
        write(&Row::Operation(Box::new(operation.clone())))?;
    }
    for transaction in &history.transactions {
        write(&Row::Transaction(transaction.clone()))?;
    }
    for epoch in &history.epochs {
        write(&Row::Epoch(*epoch))?;
    }
    for stream in &history.streams {
        write(&Row::Stream(Box::new(stream.clone())))?;
    }
    Ok(file.flush()?)
}

/// Reads a history that [`save`] wrote.
///
/// # Errors
/// When the file cannot be read, or a line of it is no record.
pub fn load(path: &Path) -> Result<History, Damaged> {
    let mut history = History::default();
    for (number, line) in BufReader::new(File::open(path)?).lines().enumerate() {
        let row = serde_json::from_str(&line?).map_err(|source| Damaged::Line { line: number + 1, source })?;
        match row {
            Row::Seed(seed) => history.seed = seed,
            Row::Collection(collection) => history.collections.push(collection),
            Row::Operation(operation) => history.operations.push(*operation),
            Row::Stream(stream) => history.streams.push(*stream),
            Row::Transaction(transaction) => history.transactions.push(transaction),
            Row::Epoch(epoch) => history.epochs.push(epoch),
            Row::Note(name, note) => drop(history.notes.insert(name, note)),
        }
    }
    Ok(history)
}
#[cfg(test)]
mod tests {
    use super::{Damaged, Epoch, load, save};
    use crate::oracle::model;

    /// A history is the same after a way through a file, and a damaged line is named.
    #[test]
    fn a_history_comes_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history.jsonl");
        let mut history = model::run(7, 60).history;
        history.epochs.push(Epoch { begun: 3, revision: 9 });
        save(&history, &path).expect("saved");
        assert_eq!(load(&path).expect("loaded"), history);
        let mut text = std::fs::read_to_string(&path).expect("read");
        text.insert_str(text.find('\n').expect("a line") + 1, "{\"no\":1}\n");
        std::fs::write(&path, text).expect("written");
        assert!(matches!(load(&path), Err(Damaged::Line { line: 2, .. })));
    }
}
