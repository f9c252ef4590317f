//! How the two databases are opened: every RocksDB option of the product, with its reason. Knows no row.

use std::path::Path;

use quilt_state::Family;
use quilt_state::store::stem;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, LogLevel,
    Options, SliceTransform,
};
use rustix::fs::{Mode, OFlags};

use crate::family::access;

/// Memory by name (architecture D6). Whatever is not named here is small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Entries written to the log and not yet in its files.
    pub log_memtable_bytes: usize,
    /// Newest log entries kept decoded for replication and apply.
    pub log_tail_bytes: usize,
    /// Rows written to the state and not yet in its files.
    pub state_memtable_bytes: usize,
    /// Blocks of both databases.
    pub block_cache_bytes: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            log_memtable_bytes: 32 << 20,
            log_tail_bytes: 16 << 20,
            state_memtable_bytes: 48 << 20,
            block_cache_bytes: 48 << 20,
        }
    }
}

/// Files held open at once by each database: well below the usual limit of 1,024 of a process.
const OPEN_FILES_MAX: i32 = 256;

/// RocksDB's own diagnostic log, per file; two are kept.
const DIAGNOSTIC_BYTES_MAX: usize = 1 << 20;

/// Size of one file on disk: a snapshot is sent by files, and an unchanged one is not sent again.
const FILE_BYTES: u64 = 64 << 20;

/// Family of the rows of the log that are no entries: vote, committed mark, purged position. Entries are alone in theirs:
/// then its files follow each other, and compaction moves them instead of rewriting the log.
const MARKS: &str = "marks";

/// The family of the log's marks.
pub(crate) fn marks(log: &DB) -> Result<&ColumnFamily, String> {
    log.cf_handle(MARKS).ok_or_else(|| format!("the log has no family {MARKS:?}"))
}

/// Opens the database of the raft log.
pub(crate) fn open_log(dir: &Path, memory: &Memory) -> Result<DB, rocksdb::Error> {
    let mut options = base();
    // Its families are made with it: in one that is there, a missing family is damage, and with it the vote is gone.
    let is_new = !dir.join("CURRENT").exists();
    options.create_if_missing(is_new);
    options.create_missing_column_families(is_new);
    // The marks are written out with the entries, or their few bytes would hold back the write-ahead log for ever.
    options.set_atomic_flush(true);
    // An unfinished last record is what a crash leaves and is cut off; a damaged record with others behind it is
    // corruption, and then the log does not open.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_use_direct_io_for_flush_and_compaction(takes_direct_writes(dir));
    DB::open_cf_descriptors(&options, dir, log_families(memory))
}

fn log_families(memory: &Memory) -> [ColumnFamilyDescriptor; 2] {
    let mut entries = base();
    entries.set_block_based_table_factory(&blocks(16 << 10, None));
    // Two memtables share the budget: one is filled while the other is written out.
    entries.set_write_buffer_size(memory.log_memtable_bytes / 2);
    entries.set_max_write_buffer_number(2);
    entries.set_target_file_size_base(FILE_BYTES);
    entries.set_max_bytes_for_level_base(4 * FILE_BYTES);
    [
        ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, entries),
        ColumnFamilyDescriptor::new(MARKS, base()),
    ]
}

/// Blocks of the state, shared by every database that is the state in turn.
pub(crate) fn block_cache(memory: &Memory) -> Cache {
    Cache::new_lru_cache(memory.block_cache_bytes)
}

/// Whether a database of the state may come into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is made when it is not there.
    Create,
    /// It has to be there.
    Required,
}

/// Opens a database of the state. It has no write-ahead log: the raft log is one.
pub(crate) fn open_state(dir: &Path, memory: &Memory, cache: &Cache, presence: Presence) -> Result<DB, rocksdb::Error> {
    let mut options = base();
    options.create_if_missing(presence == Presence::Create);
    options.create_missing_column_families(presence == Presence::Create);
    // A crash must leave all families at one point, since no log evens them out.
    options.set_atomic_flush(true);
    options.set_db_write_buffer_size(memory.state_memtable_bytes);
    options.set_use_direct_io_for_flush_and_compaction(takes_direct_writes(dir));
    DB::open_cf_descriptors(&options, dir, families(memory, cache))
}

/// Whether files of a database may be written past the page cache (decision 29): where the file system cannot, they are
/// written through it as ever. The question leaves no file behind.
fn takes_direct_writes(dir: &Path) -> bool {
    let unnamed = OFlags::TMPFILE | OFlags::WRONLY | OFlags::DIRECT;
    // A database that is to be made has no directory yet.
    let there = dir.ancestors().find(|ancestor| ancestor.is_dir());
    there.is_some_and(|there| rustix::fs::open(there, unnamed, Mode::RUSR | Mode::WUSR).is_ok())
}

/// Opens a database of the state, or a checkpoint of one, for reading only.
pub(crate) fn open_state_read_only(dir: &Path, memory: &Memory) -> Result<DB, rocksdb::Error> {
    let cache = Cache::new_lru_cache(READ_ONLY_CACHE_BYTES);
    DB::open_cf_descriptors_read_only(&base(), dir, families(memory, &cache), false)
}

/// Opens the log for reading only.
pub(crate) fn open_log_read_only(dir: &Path) -> Result<DB, rocksdb::Error> {
    DB::open_cf_descriptors_read_only(&base(), dir, log_families(&Memory::default()), false)
}

/// One file in a hundred is read in vain.
const FILTER_BITS_PER_STEM: f64 = 10.0;

/// Enough for one row, or for a scan that reads each block once.
const READ_ONLY_CACHE_BYTES: usize = 1 << 20;

fn families(memory: &Memory, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let mut families = vec![ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, base())];
    for family in Family::ALL {
        let mut options = base();
        let mut blocks = blocks(access(family).block_bytes(), Some(cache));
        if family == Family::Versions {
            // A key has rows in a few files only, and which ones is asked for every read of one key.
            options.set_prefix_extractor(SliceTransform::create("quilt.stem", stem, None));
            blocks.set_bloom_filter(FILTER_BITS_PER_STEM, false);
            blocks.set_whole_key_filtering(false);
        }
        options.set_block_based_table_factory(&blocks);
        // The budget is the database's as a whole; no family is written out alone.
        options.set_write_buffer_size(memory.state_memtable_bytes);
        options.set_max_write_buffer_number(3);
        options.set_target_file_size_base(FILE_BYTES);
        options.set_max_bytes_for_level_base(4 * FILE_BYTES);
        options.set_level_compaction_dynamic_level_bytes(true);
        families.push(ColumnFamilyDescriptor::new(family.name(), options));
    }
    families
}

fn base() -> Options {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    // Small arenas: an idle family costs kilobytes, not a megabyte.
    options.set_arena_block_size(256 << 10);
    // What goes through the page cache is written out in steps, so that a sync of the log does not wait behind a whole file
    // of dirty pages.
    options.set_bytes_per_sync(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(DIAGNOSTIC_BYTES_MAX);
    options.set_keep_log_file_num(2);
    // Nobody reads them, and they wake an idle process.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn blocks(block_bytes: usize, cache: Option<&Cache>) -> BlockBasedOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(block_bytes);
    blocks.set_format_version(5);
    match cache {
        Some(cache) => {
            blocks.set_block_cache(cache);
            blocks.set_cache_index_and_filter_blocks(true);
            blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        }
        // The log is read once, in order; its newest entries are kept decoded anyway.
        None => blocks.disable_cache(),
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What RocksDB wrote down as the options of a database.
    fn options(dir: &Path) -> String {
        let files = std::fs::read_dir(dir).expect("readable").flatten();
        let newest = files.map(|file| file.path()).filter(|path| path.to_string_lossy().contains("OPTIONS-")).max();
        std::fs::read_to_string(newest.expect("RocksDB writes them down")).expect("readable")
    }

    /// Both databases write tables past the page cache exactly where the file system can, and open in any case. None can where
    /// no file can be made.
    #[test]
    fn tables_are_written_past_the_page_cache_where_that_works() {
        let dir = tempfile::tempdir().expect("a directory");
        let (log, state) = (dir.path().join("log"), dir.path().join("state"));
        let can = takes_direct_writes(&log);
        let memory = Memory::default();
        drop(open_log(&log, &memory).expect("opens"));
        drop(open_state(&state, &memory, &block_cache(&memory), Presence::Create).expect("opens"));
        let said = format!("use_direct_io_for_flush_and_compaction={can}");
        for dir in [&log, &state] {
            assert!(options(dir).contains(&said), "{} does not say {said}", dir.display());
        }
        assert!(!takes_direct_writes(Path::new("/proc")));
    }
}
