//! Every maximum of the machine, with its reason (architecture D2, D18).

/// Operations in one transaction: apply stays bounded, and a batch of binds fits.
pub const TXN_OPS_MAX: usize = 5_000;

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
