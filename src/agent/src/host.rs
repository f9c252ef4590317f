//! What the host is: its name, its address towards the control plane, what it has and what of it is in use. Reads `/proc`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use reqwest::Url;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::error::AgentError;

/// Pods a node takes at most, as with a kubelet.
const PODS_MAX: u32 = 110;

/// The host's name in lower case, which is a node's usual name.
pub(crate) fn name() -> Result<String, AgentError> {
    let path = "/proc/sys/kernel/hostname";
    let text = std::fs::read_to_string(path).map_err(AgentError::file(path))?;
    let name = text.trim().to_lowercase();
    if name.is_empty() {
        return Err(AgentError::Option {
            option: "--name",
            reason: "the host has no name, so the node needs one".to_owned(),
        });
    }
    Ok(name)
}

/// The address this host would use towards one of the servers. Nothing is sent: connecting a datagram socket only picks a route.
pub(crate) async fn address_towards(servers: &[Url]) -> IpAddr {
    for server in servers {
        let (Some(host), Some(port)) = (server.host_str(), server.port_or_known_default()) else {
            continue;
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let Ok(candidates) = tokio::net::lookup_host((host, port)).await else {
            continue;
        };
        for candidate in candidates {
            let any: IpAddr =
                if candidate.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
            let Ok(socket) = UdpSocket::bind((any, 0)).await else {
                continue;
            };
            if socket.connect(candidate).await.is_ok()
                && let Ok(local) = socket.local_addr()
            {
                return local.ip();
            }
        }
    }
    Ipv4Addr::LOCALHOST.into()
}

/// What the host has, as Kubernetes quantities.
pub(crate) fn capacity(data_dir: &Path) -> Value {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut capacity = json!({"cpu": cpus.to_string(), "pods": PODS_MAX.to_string()});
    if let Some(kibibytes) = memory_line("MemTotal:") {
        capacity["memory"] = json!(format!("{kibibytes}Ki"));
    }
    if let Ok(disk) = rustix::fs::statvfs(data_dir) {
        let kibibytes = disk.f_blocks.saturating_mul(disk.f_frsize) / 1024;
        capacity["ephemeral-storage"] = json!(format!("{kibibytes}Ki"));
    }
    capacity
}

/// CPU and memory in use on the host. CPU needs two readings, so the first answer has none.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    last: Option<CpuTime>,
}

#[derive(Debug, Clone, Copy)]
struct CpuTime {
    busy: u64,
    total: u64,
}

impl Usage {
    /// Usage since the call before, as Kubernetes quantities.
    pub(crate) fn read(&mut self) -> Value {
        let mut usage = json!({});
        if let (Some(total), Some(available)) = (memory_line("MemTotal:"), memory_line("MemAvailable:")) {
            usage["memory"] = json!(format!("{}Ki", total.saturating_sub(available)));
        }
        let now = cpu_time();
        if let (Some(before), Some(now)) = (self.last, now) {
            let total = now.total.saturating_sub(before.total);
            let busy = now.busy.saturating_sub(before.busy);
            let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            if total > 0 {
                let millicpu = u128::from(busy) * cpus as u128 * 1000 / u128::from(total);
                usage["cpu"] = json!(format!("{millicpu}m"));
            }
        }
        self.last = now.or(self.last);
        usage
    }
}

fn memory_line(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn cpu_time() -> Option<CpuTime> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().next()?;
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is contained in user time already.
    let total: u64 = fields.iter().take(8).sum();
    let idle = fields.get(3)? + fields.get(4).copied().unwrap_or(0);
    Some(CpuTime { busy: total.saturating_sub(idle), total })
}
