//! [`Layout`]: what lies where in a development directory, and making it the first time.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::assemble::identity;
use crate::cli::render_kubeconfig;
use crate::dev::Options;
use crate::dev::ports::{self, Held};
use crate::exit::{Failure, Hinted};
use crate::secret;
use crate::tls::authority::Authority;
use crate::tls::files::{self, ReplicaFiles};

/// File by which a directory is known to be ours; locked while a `quiltd dev` runs in it.
const MARKER: &str = ".quiltd-dev";

/// One replica's place.
pub(crate) struct ReplicaPlace {
    pub(crate) id: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) api: String,
    pub(crate) api_port: u16,
    pub(crate) http_port: u16,
    pub(crate) peer_port: u16,
}

/// One agent's place.
pub(crate) struct AgentPlace {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
}

/// Credentials in plain, for whoever owns the directory.
#[derive(Serialize, Deserialize)]
pub(crate) struct Keys {
    pub(crate) control_plane: String,
    pub(crate) admin_token: String,
    pub(crate) api_key: String,
}

/// A development cluster's directory.
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
    pub(crate) replicas: Vec<ReplicaPlace>,
    pub(crate) agents: Vec<AgentPlace>,
    pub(crate) keys: Keys,
    pub(crate) ca: PathBuf,
    pub(crate) ca_pem: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) admin_key_file: PathBuf,
    pub(crate) api_key_file: PathBuf,
    pub(crate) join_token_file: PathBuf,
    _ports: [Held; 3],
}

/// The directory of this run; no other `quiltd dev` uses it as long as this lives.
pub(crate) struct Directory {
    /// Where it is, absolute.
    pub(crate) path: PathBuf,
    /// What becomes of it at the end.
    pub(crate) end: End,
    _lock: File,
}

/// What becomes of a directory at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was asked for, and is used again.
    Kept,
    /// It was made for this run alone.
    Removed,
}

/// The directory to use.
pub(crate) fn directory(wanted: Option<&Path>, fresh: bool) -> anyhow::Result<Directory> {
    let Some(dir) = wanted else {
        let name = format!("quiltd-dev-{}", hex::encode(&secret::random()?[..6]));
        let dir = std::env::temp_dir().join(name);
        files::private_dir(&dir)?;
        return Ok(Directory { _lock: lock(&dir)?, path: dir.canonicalize()?, end: End::Removed });
    };
    let ours = dir.join(MARKER).exists();
    let empty = !dir.exists()
        || fs::read_dir(dir).with_context(|| format!("cannot read '{}'", dir.display()))?.next().is_none();
    if !ours && !empty {
        return Err(Failure::Refused(format!(
            "directory '{}' is not empty and was not made by `quiltd dev`",
            dir.display()
        )))
        .hint("choose an empty or a new directory with --dir DIR");
    }
    if ours && fresh {
        let _nobody_uses_it = lock(dir)?;
        fs::remove_dir_all(dir).with_context(|| format!("cannot empty '{}'", dir.display()))?;
    }
    files::private_dir(dir)?;
    Ok(Directory { _lock: lock(dir)?, path: dir.canonicalize()?, end: End::Kept })
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(MARKER);
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot write '{}'", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Failure::Refused(format!("another `quiltd dev` runs in directory '{}'", dir.display())))
                .hint("stop it with Ctrl-C, or choose another directory with --dir DIR")
        }
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock '{}'", path.display())),
    }
}

#[derive(Serialize, Deserialize, Default, PartialEq)]
struct Ports {
    api: Vec<u16>,
    http: Vec<u16>,
    peer: Vec<u16>,
}

impl Layout {
    /// Reads the directory, or fills it the first time.
    pub(crate) fn prepare(dir: &Path, options: &Options) -> anyhow::Result<Self> {
        let ports = choose_ports(dir, options)?;
        let [api, http, peers] = ports.each_ref().map(Held::ports);
        let at = |name: &str| dir.join(name);
        let keys = keys(&at("keys.json"))?;
        let serving = authority(&at("pki/ca"), "quiltd serving CA")?;
        let peer = authority(&at("pki/peer-ca"), "quiltd peer CA")?;
        let root_key = match fs::read(at("pki/root.key")) {
            Ok(key) => key,
            Err(_) => {
                let key = hex::encode(secret::random()?).into_bytes();
                files::write_private(&at("pki/root.key"), &key)?;
                key
            }
        };
        let replicas: Vec<_> = (1..=options.replicas)
            .zip(api.into_iter().zip(http).zip(peers))
            .map(|(id, ((api, http), peer))| ReplicaPlace {
                id,
                data_dir: at(&format!("replica-{id}")),
                api: format!("https://127.0.0.1:{api}"),
                api_port: api,
                http_port: http,
                peer_port: peer,
            })
            .collect();
        for replica in &replicas {
            fill(replica, &keys, &serving, &peer, &root_key)?;
        }
        let agents = (1..=options.agents)
            .map(|n| AgentPlace { name: format!("node-{n}"), data_dir: at(&format!("agents/node-{n}")) })
            .collect();
        let layout = Self {
            dir: dir.to_path_buf(),
            agents,
            ca: at("ca.crt"),
            ca_pem: serving.pair().certificate.clone(),
            kubeconfig: at("admin.kubeconfig"),
            admin_key_file: at("admin.key"),
            api_key_file: at("api.key"),
            join_token_file: at("agents/join.token"),
            replicas,
            keys,
            _ports: ports,
        };
        files::private_dir(&at("logs"))?;
        files::private_dir(&at("run"))?;
        files::write_public(&layout.ca, layout.ca_pem.as_bytes())?;
        files::write_private(&layout.admin_key_file, layout.keys.admin_token.as_bytes())?;
        files::write_private(&layout.api_key_file, layout.keys.api_key.as_bytes())?;
        let kubeconfig = render_kubeconfig(&contexts(&layout.replicas), &layout.ca_pem, &layout.keys.admin_token);
        files::write_private(&layout.kubeconfig, kubeconfig.as_bytes())?;
        Ok(layout)
    }

    /// Where the output of a child goes.
    pub(crate) fn log_file(&self, child: &str) -> PathBuf {
        self.dir.join(format!("logs/{child}.log"))
    }

    /// Where the process id of a child stands while it lives.
    pub(crate) fn pid_file(&self, child: &str) -> PathBuf {
        self.dir.join(format!("run/{child}.pid"))
    }

    /// Puts the join token where agents look for it.
    pub(crate) fn write_join_token(&self, token: &str) -> anyhow::Result<()> {
        files::write_private(&self.join_token_file, token.as_bytes())
    }
}

/// One context by the first replica's address, the usual one, and one for each replica by its own.
fn contexts(replicas: &[ReplicaPlace]) -> Vec<(String, String)> {
    let usual = replicas.first().map(|replica| ("quilt".to_owned(), replica.api.clone()));
    let each = replicas.iter().map(|replica| (format!("replica-{}", replica.id), replica.api.clone()));
    usual.into_iter().chain(each).collect()
}

/// API, HTTP and peer ports. Those of an earlier run are taken again when any free ones are asked for: replicas know each
/// other by them.
fn choose_ports(dir: &Path, options: &Options) -> anyhow::Result<[Held; 3]> {
    let path = dir.join("ports.json");
    let before: Option<Ports> = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(before) = &before
        && before.api.len() != usize::from(options.replicas)
    {
        return Err(Failure::Refused(format!(
            "directory '{}' holds a cluster of {} replicas, not {}",
            dir.display(),
            before.api.len(),
            options.replicas
        )))
        .hint(format!("use --replicas {}, or start over with --fresh", before.api.len()));
    }
    let before = before.unwrap_or_default();
    let pick = |base: u16, before: &[u16], flag| match (base, before.first()) {
        (0, Some(_)) => ports::keep(before, flag),
        _ => ports::choose(base, options.replicas, flag),
    };
    let held = [
        pick(options.api_port, &before.api, "--api-port")?,
        pick(options.http_port, &before.http, "--http-port")?,
        pick(options.peer_port, &before.peer, "--peer-port")?,
    ];
    let [api, http, peer] = held.each_ref().map(Held::ports);
    files::write_private(&path, &serde_json::to_vec(&Ports { api, http, peer })?)?;
    Ok(held)
}

fn keys(path: &Path) -> anyhow::Result<Keys> {
    if path.exists() {
        return serde_json::from_str(&files::read_private(path)?)
            .with_context(|| format!("'{}' is damaged", path.display()));
    }
    let keys = Keys {
        control_plane: uuid::Uuid::new_v4().to_string(),
        admin_token: secret::credential("qa_")?,
        api_key: secret::credential("qk_")?,
    };
    files::write_private(path, &serde_json::to_vec_pretty(&keys)?)?;
    Ok(keys)
}

fn authority(stem: &Path, common_name: &str) -> anyhow::Result<Authority> {
    let place = (stem.with_extension("crt"), stem.with_extension("key"));
    if place.0.exists() {
        return Ok(Authority::from_pair(files::read_pair(&place)?));
    }
    let authority = Authority::create(common_name)?;
    files::write_pair(&place, authority.pair())?;
    Ok(authority)
}

/// Gives a replica its certificates, the root key and what it puts into an empty state.
fn fill(
    replica: &ReplicaPlace,
    keys: &Keys,
    serving: &Authority,
    peer: &Authority,
    root_key: &[u8],
) -> anyhow::Result<()> {
    let place = ReplicaFiles::new(&replica.data_dir);
    if place.bootstrap().exists() {
        return Ok(());
    }
    identity::issue(&place, quilt_proto::ReplicaId(replica.id.into()), serving, peer, &[])?;
    identity::write_authorities(&place, serving, peer)?;
    files::write_private(&place.root_key(), root_key)?;
    identity::write_bootstrap(&place, &keys.control_plane, &keys.admin_token, Some(&keys.api_key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory has one user at a time, who keeps even `--fresh` from emptying it; afterwards it can be used again.
    #[test]
    fn a_directory_has_one_user() {
        let dir = std::env::temp_dir().join(format!("quiltd-layout-{}", uuid::Uuid::new_v4()));
        let first = directory(Some(&dir), false).expect("a new one");
        assert!(first.end == End::Kept);
        fs::write(dir.join("data"), "kept").expect("writes");
        for fresh in [false, true] {
            let error = directory(Some(&dir), fresh).err().expect("refused");
            assert!(error.to_string().contains("another `quiltd dev` runs"), "{error}");
        }
        drop(first);
        assert!(dir.join("data").exists());
        drop(directory(Some(&dir), true).expect("free again"));
        assert!(!dir.join("data").exists());
        fs::remove_dir_all(dir).expect("removes");
    }
}
