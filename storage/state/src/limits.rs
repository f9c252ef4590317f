//! Every maximum of the machine, with its reason (architecture D2, D18).

/// Operations in one transaction: apply stays bounded, and a batch of binds fits. A delete-range counts as many as it may
/// delete.
pub const TXN_OPS_MAX: usize = 5_000;

/// Delete-ranges in one transaction: each adds a key to the outcome, which is kept until it is acknowledged.
pub const TXN_RANGES_MAX: usize = 16;

/// Keys one delete-range looks at, those that are gone but not yet forgotten included: a range of nothing but them must
/// not hold up apply.
pub const RANGE_KEYS_SEEN_MAX: usize = 20_000;

/// Bytes of records one delete-range may delete, and one record more: each goes into an event.
pub const RANGE_BYTES_MAX: usize = 8 << 20;

/// Compares in one transaction.
pub const TXN_COMPARES_MAX: usize = 5_000;

/// Bytes of one transaction's puts. Manifest apply is the largest writer with 8 MiB; ordinary writers are held to
/// 1 MiB plus one object by the layer that builds them.
pub const TXN_BYTES_MAX: usize = 8 << 20;

/// One object as stored: Kubernetes' limit.
pub const VALUE_BYTES_MAX: usize = 3 << 19;

/// Keys one `Expire` may delete.
pub const EXPIRE_KEYS_MAX: u32 = 1_000;

/// History rows one `Compact` may remove.
pub const COMPACT_ROWS_MAX: u32 = 5_000;

/// Rows one `Sweep` may remove.
pub const SWEEP_ROWS_MAX: u32 = 5_000;
