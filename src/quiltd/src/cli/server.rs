//! `quiltd server`: one replica.

use std::net::SocketAddr;
use std::path::PathBuf;

use quilt_proto::ReplicaId;

use crate::assemble;
use crate::log;

/// Run one replica of a control plane.
///
/// A lone replica makes its certificates, keys and state at first start and prints the admin key once. Several first
/// replicas are each given the same --initial-cluster; it is read only while a replica's log is empty.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd server --data-dir /var/lib/quiltd\n  quiltd server --id 1 --data-dir /var/lib/quiltd --listen 10.0.0.1:6443 --peer-listen 10.0.0.1:7443 \\\n    --initial-cluster 1=10.0.0.1:7443,2=10.0.0.2:7443,3=10.0.0.3:7443"
)]
pub(crate) struct Server {
    /// Number of this replica; never used again after its data was wiped.
    #[arg(long, env = "QUILTD_ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    id: u64,
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
    /// Serve the store as plain keys and values too (gRPC quilt.kv.v1, admin key needed), for operators and benchmarks.
    #[arg(long, env = "QUILTD_KV_API")]
    kv_api: bool,
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
    let port_given =
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if id == 0 || !port_given {
        return Err(expected());
    }
    Ok((ReplicaId(id), address.to_owned()))
}

impl Server {
    pub(crate) fn run(self, directives: &str) -> anyhow::Result<()> {
        log::start(directives)?;
        let id = ReplicaId(self.id);
        let mut members = self.initial_cluster;
        if members.is_empty() {
            members.push((id, self.peer_listen.to_string()));
        }
        if !members.iter().any(|(member, _)| *member == id) {
            let text = format!("--initial-cluster does not name replica {id} itself");
            return Err(crate::exit::Failure::Usage(text).into());
        }
        assemble::run(assemble::Options {
            id,
            data_dir: self.data_dir,
            listen: self.listen,
            advertise: self.advertise,
            http_listen: self.http_listen,
            peer_listen: self.peer_listen,
            members,
            kv_api: self.kv_api.into(),
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
        assert!(loopback("10.0.0.1:8080").is_err());
        assert!(reachable("0.0.0.0:6443").is_err() && reachable("10.0.0.1:6443").is_ok());
    }
}
