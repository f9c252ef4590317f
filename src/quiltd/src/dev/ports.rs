//! Ports of a development cluster: counted up from a base, those of an earlier run, or any free ones; kept for its replicas.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use crate::exit::{Failure, Hinted};

/// Ports for one purpose, one for each replica. While this lives, the system gives them to nobody who asks for any free
/// port, nor to a connection on its way out; a replica that names its own gets it, however often it starts.
///
/// Behind each is a socket that is bound and never listens, and allows others beside it that say the same: Linux refuses
/// only a second one that listens (`inet_csk_get_port`).
pub(crate) struct Held(Vec<(u16, OwnedFd)>);

impl Held {
    /// Which ones, in the order of the replicas.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.0.iter().map(|(port, _)| *port).collect()
    }
}

/// Keeps `count` ports: `base`, `base + 1`, …, or any free ones when `base` is 0.
pub(crate) fn choose(base: u16, count: u16, flag: &str) -> anyhow::Result<Held> {
    let wanted = (0..count).map(|n| match base {
        0 => Some(0),
        base => base.checked_add(n),
    });
    let wanted: Option<Vec<u16>> = wanted.collect();
    keep(&wanted.ok_or_else(|| Failure::Usage(format!("{flag} {base} leaves no room for {count} ports")))?, flag)
}

/// Keeps these ports.
pub(crate) fn keep(wanted: &[u16], flag: &str) -> anyhow::Result<Held> {
    let held = wanted.iter().map(|port| {
        reserve(*port)
            .map_err(|error| anyhow::anyhow!("port {port} cannot be used: {error}"))
            .hint(format!("choose another with {flag} PORT, or any free ones with {flag} 0"))
    });
    Ok(Held(held.collect::<anyhow::Result<_>>()?))
}

fn reserve(port: u16) -> io::Result<(u16, OwnedFd)> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    let bound = SocketAddrV4::try_from(getsockname(&socket)?)?;
    Ok((bound.port(), socket))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Whoever names a port that is kept may listen on it, one at a time; a port that somebody listens on cannot be kept.
    #[test]
    fn a_port_is_kept_for_whoever_names_it() {
        let held = choose(0, 3, "--api-port").expect("there are free ones");
        for port in held.ports() {
            let replica = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is kept for this");
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err(), "one listens");
            assert!(keep(&[port], "--api-port").is_err(), "it is in use");
            drop(replica);
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("and again");
        }
    }

    /// Nobody who asks for any port is given one that is kept, although nobody listens there.
    #[test]
    fn a_kept_port_is_no_free_one() {
        let held = choose(0, 400, "--api-port").expect("there are free ones");
        let kept = held.ports();
        let others: Vec<TcpListener> =
            (0..500).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there are more")).collect();
        for other in others {
            let port = other.local_addr().expect("bound").port();
            assert!(!kept.contains(&port), "{port} was given away");
        }
    }

    /// Ports end at 65,535.
    #[test]
    fn there_must_be_room_above_the_base() {
        let error = choose(65_534, 3, "--api-port").err().expect("no room");
        assert!(error.to_string().contains("leaves no room for 3 ports"), "{error}");
    }
}
