//! What this host is called and where it is reached, as far as it can tell itself.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// A documentation address (RFC 5737): the route to it is the default one, and nothing is ever sent there.
const ANYWHERE: &str = "192.0.2.1:9";

/// The address of the interface that has the default route.
pub(crate) fn outgoing() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Connecting a datagram socket chooses a route and sends nothing.
    socket.connect(ANYWHERE).ok()?;
    specified(socket.local_addr().ok()?.ip())
}

/// The address, unless it means every address.
pub(crate) fn specified(ip: IpAddr) -> Option<IpAddr> {
    (!ip.is_unspecified()).then_some(ip)
}

/// Where others reach what listens on `listen`; a listener on every address is reached by the default route's one.
pub(crate) fn reached_at(listen: SocketAddr) -> Option<SocketAddr> {
    let ip = specified(listen.ip()).or_else(outgoing)?;
    Some(SocketAddr::new(ip, listen.port()))
}

/// Names and addresses under which clients may know this host: those it finds out itself, and those it is told.
pub(crate) fn names(listen: SocketAddr, advertise: Option<SocketAddr>, given: &[String]) -> Vec<String> {
    let own = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    let own = own.filter(|name| !name.is_empty());
    let addresses = specified(listen.ip()).into_iter().chain(outgoing()).chain(advertise.map(|address| address.ip()));
    own.into_iter().chain(addresses.map(|ip| ip.to_string())).chain(given.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address that was given stays; one that means all of them never goes out.
    #[test]
    fn every_address_is_none() {
        let given = "10.0.0.2:7443".parse().expect("an address");
        assert_eq!(reached_at(given), Some(given));
        let all = reached_at("0.0.0.0:7443".parse().expect("an address"));
        assert!(all.is_none_or(|found| !found.ip().is_unspecified() && found.port() == 7443));
        assert!(names(given, None, &[]).contains(&"10.0.0.2".to_owned()));
    }
}
