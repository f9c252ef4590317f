//! Tells a torn tail from corruption in the write-ahead log of the log database, and cuts the former off.
//!
//! A power cut may keep some sectors of the last write and lose others, so its record is there with a wrong checksum.
//! Nobody was told that it is durable, and nothing follows it: it is cut off. A damaged record with whole ones behind
//! it was durable once: that is corruption, and the replica has to be rebuilt from another one.
//!
//! Knows the framing of RocksDB's log files, nothing of what is in their records.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use crate::files;

/// Records do not cross the ends of blocks; a longer one is cut into fragments.
const BLOCK_BYTES: usize = 32 << 10;

/// Masked checksum, length, kind.
const HEADER_BYTES: usize = 7;

/// What is to be cut off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) file: PathBuf,
    /// Where the file is to end.
    pub(crate) end: u64,
    pub(crate) removed_bytes: u64,
}

/// How the files end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Whole,
    /// The last write was torn: it may be cut off.
    Torn(Cut),
    /// What is not whole is no torn tail: what was durable once is damaged there.
    Damaged {
        file: PathBuf,
        at: u64,
    },
}

/// Reads the log files record by record. Changes nothing.
///
/// This is not left to RocksDB: a damaged length can make a record in the middle look like one that is cut short by the
/// end of the file, and then everything behind it would be taken for unwritten.
pub(crate) fn inspect(dir: &Path) -> io::Result<Tail> {
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|ending| ending.to_str())) {
            files.push((number, path));
        }
    }
    files.sort();
    let mut contents = Vec::new();
    for (_, path) in files {
        let content = std::fs::read(&path)?;
        if !content.is_empty() {
            contents.push((path, content));
        }
    }
    let Some((file, content)) = contents.pop() else { return Ok(Tail::Whole) };
    // Whatever came before the newest file was synced when that one was begun.
    for (file, older) in contents {
        if let Some(end) = whole_until(&older) {
            return Ok(Tail::Damaged { file, at: end as u64 });
        }
    }
    Ok(tail_of(file, &content))
}

/// How one file ends.
fn tail_of(file: PathBuf, content: &[u8]) -> Tail {
    let Some(end) = whole_until(content) else { return Tail::Whole };
    let followed = begins_anywhere(content.get(end + 1..).unwrap_or_default(), end + 1);
    if followed || !looks_torn(content, end) {
        return Tail::Damaged { file, at: end as u64 };
    }
    Tail::Torn(Cut { file, end: end as u64, removed_bytes: (content.len() - end) as u64 })
}

/// The place in a database's list of its files that is not what was written, if there is one. The list has the framing of
/// a log; RocksDB takes a damaged end of it for unwritten, and forgets the files, or the families, named there. One that
/// does not open at all is RocksDB's to name.
pub(crate) fn damage_in_manifest(database: &Path) -> io::Result<Option<String>> {
    let Some(current) = files::read_if_present(&database.join("CURRENT"))? else { return Ok(None) };
    let Ok(name) = String::from_utf8(current) else { return Ok(None) };
    let file = database.join(name.trim());
    let Some(content) = files::read_if_present(&file)?.filter(|content| !content.is_empty()) else { return Ok(None) };
    Ok(match tail_of(file, &content) {
        Tail::Whole | Tail::Torn(_) => None,
        Tail::Damaged { file, at } => Some(damaged_at(&file, at)),
    })
}

/// What is said of a damaged record.
pub(crate) fn damaged_at(file: &Path, at: u64) -> String {
    format!("the record at offset {at} of {} is not what was written", file.display())
}

/// Half of what a disk keeps or loses as a whole: of any lost sector one such piece is a piece of the record.
const UNWRITTEN_BYTES: usize = 256;

/// Whether the record at `from`, which nothing follows, is one that a crash left unfinished: it is cut short, or sectors of
/// it were never written. One that is there to its last byte and does not fit its checksum was changed afterwards.
fn looks_torn(content: &[u8], from: usize) -> bool {
    let mut at = from;
    loop {
        let left = BLOCK_BYTES - at % BLOCK_BYTES;
        if left < HEADER_BYTES {
            at += left;
            continue;
        }
        match fragment(content, at) {
            Some((_, end)) => at = end,
            None => break,
        }
    }
    let Some(rest) = content.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) else { return true };
    let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    // What was never written reads as zeros: within the record a whole piece of them, at its ends what of one lies there.
    let (header, end) = (rest.get(..HEADER_BYTES), rest.get(rest.len() - 2..));
    if header.is_some_and(zeros) || end.is_some_and(zeros) || rest.chunks(UNWRITTEN_BYTES).any(zeros) {
        return true;
    }
    let &[c0, c1, c2, c3, l0, l1, kind, ref payload @ ..] = rest else { return true };
    if usize::from(u16::from_le_bytes([l0, l1])) <= payload.len() {
        return false;
    }
    // It seems to be cut short. When it fits its checksum up to where the file ends, only its length was changed.
    let checked = [&[kind], payload].concat();
    masked(crc32c(&checked)) != u32::from_le_bytes([c0, c1, c2, c3])
}

impl Cut {
    /// Cuts it off.
    pub(super) fn off(&self) -> io::Result<()> {
        let opened = OpenOptions::new().write(true).open(&self.file)?;
        opened.set_len(self.end)?;
        opened.sync_all()
    }
}

/// One fragment of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Full,
    First,
    Middle,
    Last,
    /// Of another purpose than carrying a record.
    Other,
}

/// The fragment at an offset, and where the next one begins; nothing when there is no whole one.
fn fragment(content: &[u8], at: usize) -> Option<(Kind, usize)> {
    let header: &[u8; HEADER_BYTES] = content.get(at..)?.first_chunk()?;
    let [c0, c1, c2, c3, l0, l1, kind] = *header;
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    let end = at + HEADER_BYTES + length;
    // A kind of zero is space that was set aside and never written.
    if kind == 0 || at % BLOCK_BYTES + HEADER_BYTES + length > BLOCK_BYTES {
        return None;
    }
    let checked = content.get(at + HEADER_BYTES - 1..end)?;
    if masked(crc32c(checked)) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return None;
    }
    let kind = match kind {
        1 | 5 => Kind::Full,
        2 | 6 => Kind::First,
        3 | 7 => Kind::Middle,
        4 | 8 => Kind::Last,
        _ => Kind::Other,
    };
    Some((kind, end))
}

/// Where the first damage begins: the offset up to which all records are whole. Nothing when nothing but unwritten
/// space follows the last one.
fn whole_until(content: &[u8]) -> Option<usize> {
    let (mut at, mut whole) = (0, 0);
    loop {
        let left = BLOCK_BYTES - at % BLOCK_BYTES;
        if left < HEADER_BYTES {
            at += left;
            continue;
        }
        match fragment(content, at) {
            Some((kind, end)) => {
                at = end;
                if matches!(kind, Kind::Full | Kind::Last | Kind::Other) {
                    whole = end;
                }
            }
            None => break,
        }
    }
    content.get(whole..)?.iter().any(|byte| *byte != 0).then_some(whole)
}

/// Whether a record begins somewhere in `rest`, which stands at `offset` in its file. What goes on or ends does not
/// count: it belongs to the record that is damaged.
fn begins_anywhere(rest: &[u8], offset: usize) -> bool {
    // Padded, so that places within a block stay what they are.
    let skipped = offset % BLOCK_BYTES;
    let padded = [&vec![0; skipped], rest].concat();
    (skipped..padded.len()).any(|at| {
        // The kind is looked at first: most places are ruled out by one byte.
        let kind = padded.get(at + HEADER_BYTES - 1).copied().unwrap_or(0);
        matches!(kind, 1 | 2 | 5 | 6) && fragment(&padded, at).is_some()
    })
}

/// RocksDB stores checksums turned and shifted, since checksums of data that holds checksums are weak.
const fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C, the polynomial of RocksDB's log.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)];
    !bytes.iter().fold(!0, step)
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        // The index is below 256.
        let mut sum = at as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum's published check value.
    #[test]
    fn checksum() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    /// A record, cut into fragments as RocksDB does.
    fn add(content: &mut Vec<u8>, record: &[u8]) {
        let mut rest = record;
        let mut first = true;
        loop {
            let left = BLOCK_BYTES - content.len() % BLOCK_BYTES;
            if left < HEADER_BYTES {
                content.extend(vec![0; left]);
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(left - HEADER_BYTES));
            let kind = match (first, later.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4_u8,
            };
            let checked = [&[kind], now].concat();
            content.extend(masked(crc32c(&checked)).to_le_bytes());
            content.extend(u16::try_from(now.len()).unwrap().to_le_bytes());
            content.extend(checked);
            (rest, first) = (later, false);
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Small and large records, whole; then a torn last one, of which any sector may be missing; then the same damage
    /// with a record behind it.
    #[test]
    fn torn_or_damaged() {
        let mut whole = Vec::new();
        for length in [10, 40_000, 0, 5] {
            add(&mut whole, &vec![b'x'; length]);
        }
        assert_eq!(whole_until(&whole), None);
        let unwritten = [whole.as_slice(), &[0; 5_000]].concat();
        assert_eq!(whole_until(&unwritten), None);

        let mut last = whole.clone();
        add(&mut last, &vec![b'y'; 90_000]);
        let lose = |content: &[u8], sector: usize| {
            let mut torn = content.to_vec();
            torn[sector * 512..(sector + 1) * 512].fill(0);
            torn
        };
        let mut longer = last.clone();
        add(&mut longer, b"acknowledged");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000012.log");
        for sector in (whole.len() / 512 + 1)..last.len() / 512 {
            std::fs::write(&path, lose(&last, sector)).unwrap();
            let Tail::Torn(cut) = inspect(dir.path()).unwrap() else { panic!("sector {sector}") };
            cut.off().unwrap();
            assert_eq!(cut.end, whole.len() as u64, "sector {sector}");
            assert_eq!(std::fs::read(&path).unwrap(), whole);
            if sector % 16 == 0 {
                std::fs::write(&path, lose(&longer, sector)).unwrap();
                assert!(matches!(inspect(dir.path()).unwrap(), Tail::Damaged { .. }), "sector {sector}");
                assert_eq!(std::fs::read(&path).unwrap().len(), longer.len());
            }
        }
        // Damage in a file that is not the newest is never a torn tail.
        std::fs::write(dir.path().join("000011.log"), lose(&last, last.len() / 512 - 1)).unwrap();
        std::fs::write(&path, lose(&last, last.len() / 512 - 1)).unwrap();
        assert!(matches!(inspect(dir.path()).unwrap(), Tail::Damaged { .. }));
        std::fs::remove_file(dir.path().join("000011.log")).unwrap();
        // The last record is all there, and a bit of it is not what it was: that is no torn write.
        for at in [last.len() - 1, last.len() - 3_000, whole.len() + 5, whole.len()] {
            let mut flipped = last.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, flipped).unwrap();
            assert!(matches!(inspect(dir.path()).unwrap(), Tail::Damaged { .. }), "{at}");
        }
        let mut short = whole.clone();
        add(&mut short, b"short");
        short[whole.len() + 5] ^= 0x10;
        std::fs::write(&path, short).unwrap();
        assert!(matches!(inspect(dir.path()).unwrap(), Tail::Damaged { .. }), "a length that was changed");
        // One that is cut short anywhere is one.
        for length in [whole.len() + 1, whole.len() + 6, whole.len() + 8, last.len() - 40_000, last.len() - 1] {
            std::fs::write(&path, &last[..length]).unwrap();
            assert!(matches!(inspect(dir.path()).unwrap(), Tail::Torn(_)), "{length}");
        }
        // A length that reaches behind the end of the file makes no torn tail of what others follow.
        let mut damaged = longer.clone();
        damaged[5] ^= 0x10;
        std::fs::write(&path, damaged).unwrap();
        assert!(matches!(inspect(dir.path()).unwrap(), Tail::Damaged { at: 0, .. }));
    }
}
