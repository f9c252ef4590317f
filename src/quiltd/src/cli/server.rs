//! `quiltd server`: one replica.

use std::net::SocketAddr;
use std::path::PathBuf;

use quilt_proto::ReplicaId;

use crate::assemble::{self, identity};
use crate::cli::client::tls_address;
use crate::exit::Failure;
use crate::host;
use crate::join::Joining;
use crate::log;
use crate::malloc;

/// Run one replica of a control plane.
///
/// A lone replica makes its certificates, keys and state at first start and prints the admin key once. Several first
/// replicas are each given the same --initial-cluster; it is read only while a replica's log is empty. Or the others join
/// the first one, each by a replica token: --join.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd server --data-dir /var/lib/quiltd\n  quiltd server --id 1 --data-dir /var/lib/quiltd --listen 10.0.0.1:6443 --peer-listen 10.0.0.1:7443 \\\n    --initial-cluster 1=10.0.0.1:7443,2=10.0.0.2:7443,3=10.0.0.3:7443\n  quiltd server --join https://10.0.0.1:6443 --token-file replica.token"
)]
pub(crate) struct Server {
    /// Number of this replica; never used again after its data was wiped. By default the one its data directory says, or 1
    /// where there is none.
    #[arg(long, env = "QUILTD_ID", value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    id: Option<u64>,
    /// Where the replica keeps its log, state, certificates and keys.
    #[arg(long, env = "QUILTD_DATA_DIR", default_value = "/var/lib/quiltd", value_name = "DIR")]
    data_dir: PathBuf,
    /// Address of the API, TLS.
    #[arg(long, env = "QUILTD_LISTEN", default_value = "0.0.0.0:6443", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Address by which clients inside clusters reach this replica's API; found out when left out.
    #[arg(long, env = "QUILTD_ADVERTISE", value_name = "IP:PORT", value_parser = reachable)]
    advertise: Option<SocketAddr>,
    /// Address of a plain-HTTP listener, for tools that cannot trust a private CA; loopback only.
    #[arg(long, env = "QUILTD_HTTP_LISTEN", value_name = "IP:PORT", value_parser = loopback)]
    http_listen: Option<SocketAddr>,
    /// Address for other replicas.
    #[arg(long, env = "QUILTD_PEER_LISTEN", default_value = "0.0.0.0:7443", value_name = "IP:PORT")]
    peer_listen: SocketAddr,
    /// All first replicas and their peer addresses; without it this replica is alone.
    #[arg(long, env = "QUILTD_INITIAL_CLUSTER", value_delimiter = ',', value_parser = member, value_name = "N=HOST:PORT")]
    initial_cluster: Vec<(ReplicaId, String)>,
    /// Where other replicas reach this one; by default --peer-listen, or this host's address where that is every address.
    #[arg(long, env = "QUILTD_PEER_ADVERTISE", value_parser = peer_address, value_name = "HOST:PORT")]
    peer_advertise: Option<String>,
    /// A further name or address by which clients reach this replica, for its certificate; repeatable. Read at first start.
    #[arg(long, value_name = "HOST")]
    name: Vec<String>,
    /// Join the control plane that answers here, by any of its replicas. Done once; a replica that has joined stays.
    #[arg(long, env = "QUILTD_JOIN", requires = "token_file", conflicts_with_all = ["id", "initial_cluster"], value_parser = tls_address, value_name = "URL")]
    join: Option<String>,
    /// File that holds the replica token, as quiltd token create printed it.
    #[arg(long, env = "QUILTD_REPLICA_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Serve the store as plain keys and values too (gRPC quilt.kv.v1, admin key needed), for operators and benchmarks.
    #[arg(long, env = "QUILTD_KV_API")]
    kv_api: bool,
    /// How much of the log a replica keeps for others that were away; who lacks more is sent the whole state.
    #[arg(long, env = "QUILTD_LOG_KEEP", default_value = "256MiB", value_parser = bytes, value_name = "SIZE")]
    log_keep: u64,
}

/// Reads a size, such as `64KiB`.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let size = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
    size.filter(|size| *size > 0).ok_or_else(|| "expected a size above zero, such as 64KiB, 256MiB or 1GiB".to_owned())
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected IP:PORT".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("plain HTTP is served on loopback addresses only, such as 127.0.0.1:8080".into())
    }
}

fn reachable(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected IP:PORT".to_owned())?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err("expected one address of this host, such as 10.0.0.1:6443".into());
    }
    Ok(address)
}

/// Reads `N=HOST:PORT`.
pub(crate) fn member(text: &str) -> Result<(ReplicaId, String), String> {
    let expected = || "expected N=HOST:PORT, such as 1=10.0.0.1:7443".to_owned();
    let (id, address) = text.split_once('=').ok_or_else(expected)?;
    let id: u64 = id.trim().parse().map_err(|_| expected())?;
    if id == 0 {
        return Err(expected());
    }
    Ok((ReplicaId(id), peer_address(address).map_err(|_| expected())?))
}

/// Reads `HOST:PORT`, as other replicas dial it.
pub(crate) fn peer_address(text: &str) -> Result<String, String> {
    let complete = text.rsplit_once(':').is_some_and(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let named = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/');
        named && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if complete { Ok(text.to_owned()) } else { Err("expected HOST:PORT, such as 10.0.0.4:7443".into()) }
}

impl Server {
    /// Where others reach this replica.
    fn peer_address(&self) -> Result<String, Failure> {
        let found = self.peer_advertise.clone().or_else(|| Some(host::reached_at(self.peer_listen)?.to_string()));
        found.ok_or_else(|| {
            Failure::Usage("no address of this host is known to other replicas: give one with --peer-advertise".into())
        })
    }

    fn joining(&self, url: String, token_file: PathBuf, address: String) -> anyhow::Result<Joining> {
        if self.peer_listen.port() == 0 {
            return Err(Failure::Usage("--peer-listen needs a port that stays the same".into()).into());
        }
        let names = host::names(self.listen, self.advertise, &self.name);
        Ok(Joining { url, token_file, data_dir: self.data_dir.clone(), address, names })
    }

    pub(crate) fn run(self, directives: &str) -> anyhow::Result<()> {
        let settled = malloc::settle();
        log::start(directives)?;
        if let Err(error) = settled {
            tracing::warn!(%error, "the allocator keeps its usual settings");
        }
        let address = self.peer_address();
        if let (Some(url), Some(token_file)) = (&self.join, &self.token_file) {
            let joining = self.joining(url.clone(), token_file.clone(), self.peer_address()?)?;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(joining.run())?;
        }
        let joined = identity::membership(&self.data_dir)?;
        let stored = quilt_storage::Home::identity_of(&self.data_dir).ok().flatten().map(|stored| stored.replica);
        let id = ReplicaId(self.id.or_else(|| joined.as_ref().map(|joined| joined.replica)).or(stored).unwrap_or(1));
        let mut members = self.initial_cluster;
        if members.is_empty() {
            members.push((id, joined.as_ref().map_or(address, |joined| Ok(joined.address.clone()))?));
        }
        if !members.iter().any(|(member, _)| *member == id) {
            let text = format!("--initial-cluster does not name replica {id} itself");
            return Err(Failure::Usage(text).into());
        }
        assemble::run(&assemble::Options {
            id,
            data_dir: self.data_dir,
            listen: self.listen,
            advertise: self.advertise,
            http_listen: self.http_listen,
            peer_listen: self.peer_listen,
            members,
            start: if joined.is_some() { assemble::Start::Wait } else { assemble::Start::Found },
            names: self.name,
            kv_api: self.kv_api.into(),
            log_keep_bytes: self.log_keep,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members are read as they are shown in the help, and mistakes are told apart from addresses.
    #[test]
    fn members_are_parsed() {
        assert_eq!(member("2=cp-2:7443"), Ok((ReplicaId(2), "cp-2:7443".into())));
        for wrong in ["cp-2:7443", "0=cp:1", "1=cp", "1=:7443", "x=cp:1"] {
            assert!(member(wrong).is_err(), "{wrong}");
        }
        assert_eq!((bytes("64KiB"), bytes("1GiB")), (Ok(64 << 10), Ok(1 << 30)));
        assert!(["0B", "64", "KiB", "1.5GiB", "99999999999GiB"].iter().all(|wrong| bytes(wrong).is_err()));
        assert!(loopback("10.0.0.1:8080").is_err());
        assert!(reachable("0.0.0.0:6443").is_err() && reachable("10.0.0.1:6443").is_ok());
    }
}
