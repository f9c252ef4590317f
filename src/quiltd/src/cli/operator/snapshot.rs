//! `quiltd operator snapshot`: backups, and control planes made from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use quilt_proto::ReplicaId;
use quilt_raft::EpochName;
use quilt_storage::{Identity, Manifest};
use serde_json::Value;

use crate::assemble::identity;
use crate::cli::client::Connection;
use crate::cli::confirm::Confirm;
use crate::cli::form::Output;
use crate::cli::server::member;
use crate::exit::{Failure, Hinted};
use crate::output;

/// Save, look into, verify and restore backups.
///
/// A backup holds everything but the certificates and keys in the replicas' directories; what is secret in it is
/// sealed under root.key, so keep a copy of that file elsewhere.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd operator snapshot save backup.quilt --ca ca.crt --token-file admin.key\n  quiltd operator snapshot verify backup.quilt\n  quiltd operator snapshot restore backup.quilt --data-dir /var/lib/quiltd --id 1 \\\n    --initial-cluster 1=10.0.0.1:7443,2=10.0.0.2:7443,3=10.0.0.3:7443"
)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a backup of the whole control plane, as of now, from any replica.
    #[command(
        after_help = "Examples:\n  quiltd operator snapshot save backup.quilt\n  quiltd operator snapshot save /backup/cp.quilt --address https://10.0.0.2:6443 --ca ca.crt --token-file admin.key"
    )]
    Save {
        /// Where to; replaced whole when it is there.
        file: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show what a backup holds. Reads only its head.
    #[command(
        after_help = "Examples:\n  quiltd operator snapshot inspect backup.quilt\n  quiltd operator snapshot inspect backup.quilt -o jsonpath={.last_write}"
    )]
    Inspect {
        /// The backup.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Read a backup to its end: checksums, hash of the state, and whether its rows agree with each other.
    #[command(after_help = "Examples:\n  quiltd operator snapshot verify backup.quilt")]
    Verify {
        /// The backup.
        file: PathBuf,
    },
    Restore(Restore),
}

/// Make a replica's data directory out of a backup, beginning a new epoch.
///
/// Do this for every replica of the restored control plane while none runs, with the same backup and the same
/// --initial-cluster, then start them as usual. The first restore prints the epoch, which the others are given with
/// --epoch. Replicas that are not restored are refused by those that are. Join tokens made before the backup are void:
/// they may have been spent since. Data found in the directory is moved aside, not removed. Asks once.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd operator snapshot restore backup.quilt --dry-run --id 1 --initial-cluster 1=10.0.0.1:7443,2=10.0.0.2:7443,3=10.0.0.3:7443\n  quiltd operator snapshot restore backup.quilt --yes -o jsonpath={.epoch} --id 1 \\\n    --initial-cluster 1=10.0.0.1:7443,2=10.0.0.2:7443,3=10.0.0.3:7443"
)]
struct Restore {
    /// The backup.
    file: PathBuf,
    #[command(flatten)]
    replica: Replica,
    /// Epoch of the restored control plane, as the first restore printed it; a new one when it is not given.
    #[arg(long, value_name = "EPOCH")]
    epoch: Option<EpochName>,
    /// Show the plan and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    output: Output,
}

/// The replica whose directory is made.
#[derive(Debug, clap::Args)]
pub(super) struct Replica {
    /// Number of the replica.
    #[arg(long, env = "QUILTD_ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub(super) id: u64,
    /// Its data directory; its certificates, root.key and bootstrap.json have to be there.
    #[arg(long, env = "QUILTD_DATA_DIR", default_value = "/var/lib/quiltd", value_name = "DIR")]
    pub(super) data_dir: PathBuf,
    /// All replicas of the new control plane and their peer addresses.
    #[arg(long, env = "QUILTD_INITIAL_CLUSTER", value_delimiter = ',', value_parser = member, value_name = "N=HOST:PORT", required = true)]
    pub(super) initial_cluster: Vec<(ReplicaId, String)>,
}

impl Snapshot {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.verb {
            Verb::Save { file, connection } => save(&file, &connection),
            Verb::Inspect { file, output } => inspect(&file, &output),
            Verb::Verify { file } => verify(&file),
            Verb::Restore(restore) => restore.run(),
        }
    }
}

fn save(file: &Path, connection: &Connection) -> anyhow::Result<()> {
    connection.download("/api/admin/snapshot", file)?;
    let manifest = quilt_storage::inspect_backup(file).context("what arrived is no backup")?;
    output::line(&format!("saved '{}': {}", file.display(), describe(&manifest)));
    Ok(())
}

/// A backup in one sentence.
pub(super) fn describe(manifest: &Manifest) -> String {
    format!(
        "revision {}, {} keys, {} bytes, control plane {}, epoch {}",
        manifest.revision,
        manifest.live_keys,
        manifest.size(),
        manifest.cluster,
        manifest.epoch
    )
}

fn inspect(file: &Path, form: &Output) -> anyhow::Result<()> {
    let manifest = quilt_storage::inspect_backup(file)?;
    let taken = i64::try_from(manifest.wall_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let taken = taken.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default();
    let hash = format!("{:016x}{:016x}", manifest.hash_high, manifest.hash_low);
    let document = serde_json::json!({
        "format": manifest.format, "cluster": manifest.cluster, "epoch": manifest.epoch,
        "revision": manifest.revision, "keys": manifest.live_keys, "hash": hash, "last_write": taken,
        "index": manifest.index, "term": manifest.term, "bytes": manifest.size(), "files": manifest.files.len(),
    });
    form.show(&document, |_| {
        for (name, value) in [
            ("control plane", manifest.cluster.clone()),
            ("epoch", manifest.epoch.to_string()),
            ("revision", manifest.revision.to_string()),
            ("last write", taken.clone()),
            ("keys", manifest.live_keys.to_string()),
            ("hash", hash.clone()),
            ("bytes", manifest.size().to_string()),
            ("format", manifest.format.to_string()),
        ] {
            output::line(&format!("{name:<15}{value}"));
        }
    })
}

fn verify(file: &Path) -> anyhow::Result<()> {
    // Beside the backup: there is room for one there, and the temporary directory may be memory.
    let mut scratch = file.as_os_str().to_owned();
    scratch.push(format!(".verify-{}", std::process::id()));
    let verified = quilt_storage::verify_backup(file, Path::new(&scratch))
        .hint("take another backup; a replica's own data is checked with quiltd operator data check")?;
    for problem in &verified.problems {
        output::line(problem);
    }
    anyhow::ensure!(verified.problems.is_empty(), "the rows of '{}' do not agree with each other", file.display());
    output::line(&format!("'{}' is whole: {}", file.display(), describe(&verified.manifest)));
    Ok(())
}

impl Restore {
    fn run(self) -> anyhow::Result<()> {
        let manifest = quilt_storage::inspect_backup(&self.file)?;
        let epoch = self.epoch.unwrap_or_else(|| EpochName::of(wall_us(), &manifest));
        output::note(&format!("backup: {}", describe(&manifest)));
        let revision = epoch.number.max(manifest.revision + 1);
        output::note(&format!("restored: epoch {epoch}, revision {revision}; every watch and list begins anew there"));
        // Whoever gives the epoch has been told already.
        let others = self.replica.initial_cluster.iter().filter(|(id, _)| id.0 != self.replica.id);
        for (id, address) in others.filter(|_| self.epoch.is_none() && !self.dry_run) {
            output::note(&format!("replica {id} at {address}: to be restored from the same file with --epoch {epoch}"));
        }
        if self.dry_run {
            return Ok(());
        }
        let dir = self.replica.data_dir.display();
        self.confirm.ask(&format!("make the data of replica {} in '{dir}' anew from this backup?", self.replica.id))?;
        self.output.show(&begin(&self.file, &self.replica, epoch)?, tell)
    }
}

/// Makes the replica's directory out of a backup: what has been done.
pub(super) fn begin(backup: &Path, replica: &Replica, epoch: EpochName) -> anyhow::Result<Value> {
    let place = identity::read(&replica.data_dir)
        .hint("put the replica's tls/, root.key and bootstrap.json there: the backup does not hold them")?;
    let new = quilt_raft::NewEpoch {
        identity: Identity { cluster: place.control_plane, replica: replica.id },
        epoch,
        voters: replica.initial_cluster.iter().cloned().collect::<BTreeMap<_, _>>(),
        forget: &quilt_api::authn::spent_by_restore,
    };
    let done = quilt_raft::restore(backup, &replica.data_dir, &new).map_err(refusal)?;
    let aside = Some(quilt_storage::aside(&replica.data_dir, epoch.number)).filter(|dir| dir.exists());
    Ok(serde_json::json!({
        "data_dir": replica.data_dir, "replica": replica.id, "epoch": epoch.to_string(), "revision": done.revision.get(),
        "keys": done.live_keys, "void_join_tokens": done.forgotten, "aside": aside, "backup": backup,
    }))
}

/// The same in sentences.
pub(super) fn tell(done: &Value) {
    let text = |name: &str| done[name].as_str().map_or_else(|| done[name].to_string(), str::to_owned);
    output::line(&format!(
        "restored '{}': epoch {}, {} keys, revision {}; {} join tokens are void",
        text("data_dir"),
        text("epoch"),
        text("keys"),
        text("revision"),
        text("void_join_tokens")
    ));
    if !done["aside"].is_null() {
        output::line(&format!("what was there before is in '{}'", text("aside")));
    }
}

fn refusal(error: quilt_raft::RecoveryError) -> anyhow::Error {
    use quilt_raft::RecoveryError as E;
    match error {
        E::Members(text) => Failure::Usage(text).into(),
        error @ (E::Clock { .. } | E::OtherBackup { .. }) => Failure::Refused(error.to_string()).into(),
        error => error.into(),
    }
}

/// This host's clock, in microseconds since the Unix epoch.
pub(super) fn wall_us() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0)
}
