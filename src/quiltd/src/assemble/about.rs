//! What a replica tells the others of itself beside what raft knows: shown by `quiltd operator raft list-peers`.

use std::path::Path;
use std::time::Duration;

use quilt_raft::Replica;
use serde_json::json;

const EVERY: Duration = Duration::from_secs(10);

/// Keeps it up to date until `stop` completes.
pub(super) async fn keep(replica: Replica, data_dir: std::path::PathBuf, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        let about = json!({ "version": env!("CARGO_PKG_VERSION"), "disk_free_percent": disk_free_percent(&data_dir) });
        replica.describe(about.to_string());
        if tokio::time::timeout(EVERY, &mut stop).await.is_ok() {
            return;
        }
    }
}

/// Of the file system below the data directory, as an ordinary user may fill it.
fn disk_free_percent(dir: &Path) -> Option<u64> {
    let of = rustix::fs::statvfs(dir).ok()?;
    (of.f_bavail * 100).checked_div(of.f_blocks)
}

#[cfg(test)]
mod tests {
    /// A share of what is there, and nothing of what is not.
    #[test]
    fn free_space_is_a_share() {
        assert!(super::disk_free_percent(&std::env::temp_dir()).is_some_and(|percent| percent <= 100));
        assert_eq!(super::disk_free_percent(std::path::Path::new("/nowhere/at/all")), None);
    }
}
