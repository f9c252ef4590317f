//! Ports of a development cluster: counted up from a base, or free ones.

use std::net::{Ipv4Addr, TcpListener};

use crate::exit::{Failure, Hinted};

/// `count` ports for one purpose: `base`, `base + 1`, …, or any free ones when `base` is 0.
///
/// A free port is taken from the system and given back at once: another process may take it in between, in which case
/// the child that needs it says so and ends.
pub(crate) fn choose(base: u16, count: u16, flag: &str) -> anyhow::Result<Vec<u16>> {
    let mut held = Vec::new();
    for n in 0..count {
        let port = match base {
            0 => 0,
            base => base
                .checked_add(n)
                .ok_or_else(|| Failure::Usage(format!("{flag} {base} leaves no room for {count} ports")))?,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| anyhow::anyhow!("port {port} cannot be used: {error}"))
            .hint(format!("choose another with {flag} PORT, or any free ones with {flag} 0"))?;
        held.push(listener);
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
