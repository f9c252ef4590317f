//! [`Owners`]: which replica dialled a connection, by who owns its other end. Linux tells: `/proc/net/tcp` has the socket's number,
//! `/proc/PID/fd` who holds it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// The processes that may dial.
#[derive(Debug, Default)]
pub struct Owners {
    processes: Mutex<BTreeMap<u16, u32>>,
}

impl Owners {
    /// The process of a replica now.
    pub fn set(&self, replica: u16, process: u32) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).insert(replica, process);
    }

    /// The replica has no process.
    pub fn remove(&self, replica: u16) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).remove(&replica);
    }

    /// All processes, with their replicas.
    #[must_use]
    pub fn processes(&self) -> BTreeMap<u16, u32> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who dialled from `peer` to `at`; none when its process is gone, or is nobody's we know.
    pub(super) fn of(&self, peer: SocketAddr, at: SocketAddr) -> Option<u16> {
        let wanted = format!("socket:[{}]", inode(&fs::read_to_string("/proc/net/tcp").ok()?, peer, at)?);
        let processes = self.processes();
        let holds = |process: u32| {
            let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target.as_os_str() == wanted.as_str())
        };
        processes.into_iter().find(|(_, process)| holds(*process)).map(|(replica, _)| replica)
    }
}

/// The number of the socket with these ends.
fn inode(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ends = (address(fields.get(1)?)?, address(fields.get(2)?)?);
        if ends == (local, remote) { fields.get(9)?.parse().ok() } else { None }
    })
}

/// An address as that file has it: four bytes as a number of this machine, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some(SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection of this very process is found to be this process's, and nobody else's.
    #[test]
    fn the_owner_of_a_connection_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let at = listener.local_addr().expect("an address");
        let dialled = TcpStream::connect(at).expect("connects");
        let (_answered, peer) = listener.accept().expect("accepts");
        let owners = Owners::default();
        owners.set(1, 1);
        assert_eq!(owners.of(peer, at), None);
        owners.set(2, std::process::id());
        assert_eq!(owners.of(peer, at), Some(2));
        drop(dialled);
    }
}
