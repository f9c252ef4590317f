//! Under which address this replica's API is reached by clients inside clusters: what it puts behind the Service
//! `kubernetes`.

use std::net::{IpAddr, SocketAddr};

use super::Options;
use crate::host::{outgoing, specified};

/// What the command line says; else where the API listens, and if that is every address, the one by which the other
/// replicas know this host, or the one by which it reaches others.
pub(super) fn address(options: &Options) -> Option<SocketAddr> {
    let own_name = options.members.iter().find(|(id, _)| *id == options.id).map(|(_, address)| address.as_str());
    let found = options.advertise.or_else(|| {
        let ip = specified(options.listen.ip()).or_else(|| own_name.and_then(host_ip)).or_else(outgoing);
        ip.map(|ip| SocketAddr::new(ip, options.listen.port()))
    });
    if found.is_none() {
        tracing::warn!(
            "no address of this host is known: the Service kubernetes does not lead here; \
             give one with --advertise IP:PORT"
        );
    }
    found
}

/// The IP of `HOST:PORT`, where it is one.
fn host_ip(address: &str) -> Option<IpAddr> {
    address.parse::<SocketAddr>().ok().and_then(|address| specified(address.ip()))
}

#[cfg(test)]
mod tests {
    use quilt_proto::ReplicaId;

    use super::*;
    use crate::kv::KvApi;

    fn options(listen: &str, advertise: Option<&str>, own: &str) -> Options {
        Options {
            id: ReplicaId(2),
            data_dir: "/nowhere".into(),
            listen: listen.parse().expect("an address"),
            advertise: advertise.map(|address| address.parse().expect("an address")),
            http_listen: None,
            peer_listen: "0.0.0.0:7443".parse().expect("an address"),
            members: vec![(ReplicaId(1), "10.0.0.1:7443".into()), (ReplicaId(2), own.into())],
            start: super::super::Start::Found,
            names: Vec::new(),
            kv_api: KvApi::Off,
            log_keep_bytes: 1 << 20,
        }
    }

    /// The flag comes first, then a listener on one address, then the address peers know; the port is the listener's.
    #[test]
    fn the_nearest_known_address_is_advertised() {
        let of = |options: &Options| address(options).map(|address| address.to_string());
        let flag = options("10.0.0.2:6443", Some("198.51.100.7:443"), "10.9.9.9:7443");
        assert_eq!(of(&flag).as_deref(), Some("198.51.100.7:443"));
        assert_eq!(of(&options("10.0.0.2:6443", None, "10.9.9.9:7443")).as_deref(), Some("10.0.0.2:6443"));
        assert_eq!(of(&options("0.0.0.0:6443", None, "10.9.9.9:7443")).as_deref(), Some("10.9.9.9:6443"));
        for own in ["cp-2:7443", "0.0.0.0:7443"] {
            let found = address(&options("0.0.0.0:6443", None, own));
            assert!(found.is_none_or(|found| !found.ip().is_unspecified() && found.port() == 6443), "{found:?}");
        }
    }
}
