//! Services: cluster IPs, node ports and load-balancer addresses, taken and given back in the transaction that
//! writes the Service. A pool is the set of keys that are absent; taking one is a compare and a put.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use quilt_objects::place;
use quilt_objects::status::{Resource, Status};
use quilt_objects::validate::{FieldError, Path};
use quilt_proto::{Compare, Key, Op};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::{Allocation, Claims};
use crate::problem::Problem;
use crate::store::put_record;

const RESOURCE: Resource<'_> = Resource { group: "", plural: "services", kind: "Service" };
/// Group of the control plane's own records.
const INTERNAL: &str = "internal.quilt.sh";
/// The range node ports are taken from: Kubernetes' own default.
const NODE_PORTS: std::ops::RangeInclusive<u32> = 30000..=32767;
/// Random tries before the pool is walked.
const TRIES: usize = 32;
/// Low addresses of a large range are left to those who ask for one by number, as upstream does.
const STATIC_BAND: u32 = 256;

/// One taken address or port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    pool: &'static str,
    name: String,
    field: String,
}

/// See [`super::Lifecycle::allocate`].
pub(super) fn allocate(at: &Allocation<'_>, old: Option<&Value>, new: Option<&mut Value>) -> Result<Claims, Problem> {
    let held = old.map(claims).unwrap_or_default();
    let mut claims_out = Claims::default();
    let owner = new.as_deref().or(old).map_or(Value::Null, |service| {
        json!({
            "namespace": place::text_or_empty(service, &["metadata", "namespace"]),
            "name": place::text_or_empty(service, &["metadata", "name"]),
        })
    });
    let wanted = match new {
        Some(service) => {
            fill(at, &held, service)?;
            claims(service)
        }
        None => BTreeSet::new(),
    };
    let same = |a: &Claim, b: &Claim| a.pool == b.pool && a.name == b.name;
    for claim in wanted.iter().filter(|claim| !held.iter().any(|own| same(own, claim))) {
        let key = key(at, claim.pool, &claim.name)?;
        claims_out.compares.push(Compare::absent(&key));
        claims_out.ops.push(put_record(&key, &owner));
    }
    for claim in held.iter().filter(|claim| !wanted.iter().any(|kept| same(kept, claim))) {
        claims_out.ops.push(Op::delete(&key(at, claim.pool, &claim.name)?));
    }
    Ok(claims_out)
}

fn key(at: &Allocation<'_>, pool: &str, name: &str) -> Result<Key, Problem> {
    Key::new(&at.cluster.id, INTERNAL, pool, "", name).map_err(|error| Problem::internal(&error.to_string()))
}

/// Everything a stored Service holds.
fn claims(service: &Value) -> BTreeSet<Claim> {
    let mut out = BTreeSet::new();
    for (index, ip) in place::items(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str).enumerate() {
        if ip.parse::<Ipv4Addr>().is_ok() {
            out.insert(Claim { pool: "serviceips", name: ip.into(), field: format!("spec.clusterIPs[{index}]") });
        }
    }
    for (index, port) in place::items(service, &["spec", "ports"]).iter().enumerate() {
        if let Some(port) = place::int(port, &["nodePort"]).filter(|port| *port > 0) {
            let field = format!("spec.ports[{index}].nodePort");
            out.insert(Claim { pool: "nodeports", name: port.to_string(), field });
        }
    }
    if let Some(port) = place::int(service, &["spec", "healthCheckNodePort"]).filter(|port| *port > 0) {
        let field = "spec.healthCheckNodePort".to_owned();
        out.insert(Claim { pool: "nodeports", name: port.to_string(), field });
    }
    if kind_of(service) == "LoadBalancer" {
        for ingress in place::items(service, &["status", "loadBalancer", "ingress"]) {
            if let Some(ip) = place::text(ingress, &["ip"]).filter(|ip| ip.parse::<Ipv4Addr>().is_ok()) {
                let field = "status.loadBalancer".to_owned();
                out.insert(Claim { pool: "loadbalancerips", name: ip.into(), field });
            }
        }
    }
    out
}

fn kind_of(service: &Value) -> &str {
    place::text(service, &["spec", "type"]).unwrap_or("ClusterIP")
}

/// Fills in what the Service needs and does not name, and refuses what it names but cannot have.
fn fill(at: &Allocation<'_>, held: &BTreeSet<Claim>, service: &mut Value) -> Result<(), Problem> {
    let kind = kind_of(service).to_owned();
    let range = Range::parse(&at.cluster.service_cidr)
        .ok_or_else(|| Problem::internal("the cluster's service range is not an IPv4 CIDR"))?;
    let mut taken: BTreeSet<(&'static str, String)> = BTreeSet::new();
    if kind != "ExternalName" {
        match place::text_or_empty(service, &["spec", "clusterIP"]).to_owned().as_str() {
            "None" => place::set(service, &["spec", "clusterIPs"], json!(["None"])),
            "" => {
                let low = if range.size() > 2 * STATIC_BAND { STATIC_BAND } else { 1 };
                let ip = pick(at, "serviceips", &taken, low, range.size().saturating_sub(2), |n| range.address(n))?
                    .ok_or_else(|| exhausted("no cluster IP is left in the service range"))?;
                place::set(service, &["spec", "clusterIPs"], json!([ip]));
                place::set(service, &["spec", "clusterIP"], ip);
            }
            given => {
                let inside = given.parse::<Ipv4Addr>().is_ok_and(|ip| range.contains(ip));
                if !inside && !held.iter().any(|claim| claim.name == given) {
                    let why = format!(
                        "failed to allocate IP {given}: the provided IP is not in the valid range. The range of valid IPs is {}",
                        at.cluster.service_cidr
                    );
                    return Err(refuse(service, "spec.clusterIPs", given, &why));
                }
                place::set(service, &["spec", "clusterIPs"], json!([given]));
            }
        }
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        fill_ports(at, service, &kind, &mut taken)?;
    }
    if kind == "LoadBalancer" && place::items(service, &["status", "loadBalancer", "ingress"]).is_empty() {
        let pool = Range::parse(&at.cluster.load_balancer_cidr)
            .ok_or_else(|| Problem::internal("the cluster's load-balancer pool is not an IPv4 CIDR"))?;
        // An exhausted pool leaves the address pending, as a cloud would: the Service itself works without it.
        if let Some(ip) = pick(at, "loadbalancerips", &taken, 1, pool.size().saturating_sub(2), |n| pool.address(n))? {
            place::set(service, &["status", "loadBalancer", "ingress"], json!([{"ip": ip, "ipMode": "VIP"}]));
        }
    }
    for claim in claims(service) {
        let own = held.iter().any(|old| old.pool == claim.pool && old.name == claim.name);
        if !own && at.view.get(&key(at, claim.pool, &claim.name)?)?.is_some() {
            return Err(refuse(service, &claim.field, &claim.name, "provided value is already allocated"));
        }
    }
    Ok(())
}

fn fill_ports(
    at: &Allocation<'_>,
    service: &mut Value,
    kind: &str,
    taken: &mut BTreeSet<(&'static str, String)>,
) -> Result<(), Problem> {
    let allocates = kind == "NodePort"
        || place::get(service, &["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool).unwrap_or(true);
    let (first, last) = (*NODE_PORTS.start(), *NODE_PORTS.end());
    let fresh = |taken: &mut BTreeSet<(&'static str, String)>| -> Result<i64, Problem> {
        let port = pick(at, "nodeports", taken, 0, last - first, |n| (first + n).to_string())?
            .ok_or_else(|| exhausted("no node port is left"))?;
        taken.insert(("nodeports", port.clone()));
        port.parse::<i64>().map_err(|error| Problem::internal(&error.to_string()))
    };
    for port in place::items(service, &["spec", "ports"]) {
        if let Some(given) = place::int(port, &["nodePort"]).filter(|given| *given > 0) {
            if !u32::try_from(given).is_ok_and(|given| NODE_PORTS.contains(&given)) {
                let why =
                    format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
                return Err(refuse(service, "spec.ports.nodePort", &given.to_string(), &why));
            }
            taken.insert(("nodeports", given.to_string()));
        }
    }
    if allocates {
        for port in place::items_mut(service, &["spec", "ports"]) {
            if place::int(port, &["nodePort"]).unwrap_or(0) == 0 {
                let number = fresh(taken)?;
                place::set(port, &["nodePort"], number);
            }
        }
    }
    let local = place::text_or_empty(service, &["spec", "externalTrafficPolicy"]) == "Local";
    if kind == "LoadBalancer" && local && place::int(service, &["spec", "healthCheckNodePort"]).unwrap_or(0) == 0 {
        let number = fresh(taken)?;
        place::set(service, &["spec", "healthCheckNodePort"], number);
    }
    Ok(())
}

/// A free member of a pool, drawn at random first so that concurrent requests rarely meet, then by walking it.
fn pick(
    at: &Allocation<'_>,
    pool: &'static str,
    taken: &BTreeSet<(&'static str, String)>,
    low: u32,
    high: u32,
    name: impl Fn(u32) -> String,
) -> Result<Option<String>, Problem> {
    let free = |n: u32| -> Result<Option<String>, Problem> {
        let name = name(n);
        let free = !taken.contains(&(pool, name.clone())) && at.view.get(&key(at, pool, &name)?)?.is_none();
        Ok(free.then_some(name))
    };
    let span = u64::from(high.saturating_sub(low)) + 1;
    for _ in 0..TRIES {
        let offset = u32::try_from(random()? % span).unwrap_or(0);
        if let Some(name) = free(low + offset)? {
            return Ok(Some(name));
        }
    }
    // A bounded walk: a range as large as a /12 that is full in this stretch has other trouble.
    for n in (low..=high).take(65_536) {
        if let Some(name) = free(n)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn random() -> Result<u64, Problem> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Problem::internal("the system gives no randomness"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn exhausted(why: &str) -> Problem {
    Status::internal(why).into()
}

fn refuse(service: &Value, field: &str, value: &str, why: &str) -> Problem {
    let name = place::text_or_empty(service, &["metadata", "name"]);
    Status::invalid(RESOURCE, name, &[FieldError::invalid(&Path::new(field), &json!(value), why)]).into()
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug)]
struct Range {
    base: u32,
    prefix: u32,
}

impl Range {
    fn parse(cidr: &str) -> Option<Self> {
        let (address, prefix) = cidr.split_once('/')?;
        let base = u32::from(address.parse::<Ipv4Addr>().ok()?);
        let prefix = prefix.parse::<u32>().ok().filter(|prefix| (1..=32).contains(prefix))?;
        Some(Self { base, prefix })
    }

    fn size(self) -> u32 {
        1_u32.checked_shl(32 - self.prefix).unwrap_or(1)
    }

    fn address(self, n: u32) -> String {
        Ipv4Addr::from(self.base.wrapping_add(n)).to_string()
    }

    fn contains(self, ip: Ipv4Addr) -> bool {
        u32::from(ip).wrapping_sub(self.base) < self.size()
    }
}
