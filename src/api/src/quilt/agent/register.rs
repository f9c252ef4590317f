//! `POST .../register`: a node joins.
//!
//! Use of the token, its expiry, the name, the lowest free subnet, the Node and its token are one transaction; it is
//! planned again on a fresh view whenever another one came first. So a token for k uses admits exactly k nodes,
//! whatever the replicas and the concurrency, and no refusal spends a use.

use quilt_proto::{Compare, Key, KeyPrefix, Op};
use quilt_raft::View;
use serde_json::{Map, Value, json};

use crate::access::Admitted;
use crate::authn::secret::{Secret, SecretKind, fresh_id};
use crate::authn::token::{INTERNAL_GROUP, JoinToken, internal};
use crate::commit::Plan;
use crate::directory::{Cluster, Entry};
use crate::identity::Identity;
use crate::problem::Problem;
use crate::quilt::Quilt;
use crate::quilt::call::Call;
use crate::quilt::cidr::Ipv4Block;
use crate::quilt::envelope::Code;
use crate::quilt::fields::{Fields, clip, in_range, of_length};
use crate::quilt::marks;
use crate::quilt::naming::{is_object_name, slug};
use crate::quilt::node_report::NodeReport;
use crate::quilt::objects::Target;
use crate::quilt::refuse;
use crate::quilt::release::{holdings, subnet_name};
use crate::quilt::reply::Reply;
#[cfg(test)]
use crate::quilt::tests::museum;
use crate::quilt::view::node as view_of;
use crate::store::{NODES, Stored, put_record, put_record_for, record, rfc3339, text, visit};

/// A registration of the right shape.
struct Registration {
    name: String,
    bridge_name: String,
    dns_port: i64,
    egress_limit_mbit: i64,
    pod_agent: bool,
    report: NodeReport,
}

impl Registration {
    fn read(body: &Map<String, Value>) -> Result<Self, Problem> {
        let mut fields = Fields::of(body);
        let registration = Self {
            name: fields.required_string("name"),
            bridge_name: fields.required_string("bridge_name"),
            dns_port: fields.required_integer("dns_port"),
            egress_limit_mbit: fields.required_integer("egress_limit_mbit"),
            pod_agent: fields.boolean("pod_agent").unwrap_or(false),
            report: NodeReport::read(&mut fields)?,
        };
        fields.finish()?;
        of_length("name", &registration.name, 253)?;
        of_length("bridge_name", &registration.bridge_name, 15)?;
        in_range("dns_port", registration.dns_port, 1, 65_535)?;
        in_range("egress_limit_mbit", registration.egress_limit_mbit, 0, 4_294_967_295)?;
        registration.report.check()?;
        Ok(registration)
    }

    fn node(&self, name: &str, pod_cidr: Ipv4Block, now_ms: u64) -> Value {
        let now = rfc3339(now_ms);
        let allocation = json!({
            "bridge_name": self.bridge_name, "dns_port": self.dns_port,
            "egress_limit_mbit": self.egress_limit_mbit, "allocated_at": now_ms / 1000,
        });
        let mut node = json!({
            "metadata": {
                "name": name,
                "labels": {marks::AGENT: "true", "kubernetes.io/hostname": clip_label(name), "kubernetes.io/os": "linux"},
                "annotations": {
                    marks::NAME: self.name, marks::ALLOCATION: allocation.to_string(), marks::LABELS: "{}",
                    marks::POD_AGENT: self.pod_agent.to_string(), marks::REPORTED_STATE: "registered",
                },
            },
            "spec": {"podCIDR": pod_cidr.to_string(), "podCIDRs": [pod_cidr.to_string()]},
            "status": {
                "addresses": [{"type": "Hostname", "address": name}],
                "conditions": [{"type": "Ready", "status": "False", "reason": "NodeRegistered",
                    "message": "the agent has registered and takes no work yet", "lastTransitionTime": now}],
                "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                    "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
                    "operatingSystem": "linux", "architecture": ""},
            },
        });
        self.report.apply(&mut node);
        node
    }
}

/// Label values end at 63 characters, names do not.
fn clip_label(name: &str) -> String {
    let clipped: String = name.chars().take(63).collect();
    clipped.trim_end_matches(['-', '.', '_']).to_owned()
}

pub(crate) async fn register(
    quilt: &Quilt,
    call: &Call<'_>,
    cluster: &str,
    body: &Map<String, Value>,
) -> Result<Reply, Problem> {
    call.judge(|view| call.joining(view, cluster).map(|_| ())).await?;
    let registration = Registration::read(body)?;
    let (id, secret) = (fresh_id(), Secret::draw(SecretKind::NodeToken));
    let now_ms = call.replica().wall_ms();
    // Registrations of one cluster want the same records: one at a time here saves both the proposal that must fail.
    // Right under any interleaving without it.
    let _turn = quilt.turn(cluster).await;
    let planned = |view: &View| {
        let admitted = call.joining(view, cluster);
        #[cfg(test)]
        let admitted = museum::admitted(admitted, &id);
        let plan = plan(call, view, admitted?, &registration, &id, &secret, now_ms)?;
        call.keeping(plan, |answer| Reply::created(answer.clone()))
    };
    let written = call.write(planned).await?;
    Ok(Reply::created(written.answer))
}

fn plan(
    call: &Call<'_>,
    view: &View,
    (entry, token): (Entry, JoinToken),
    registration: &Registration,
    id: &str,
    secret: &Secret,
    now_ms: u64,
) -> Result<Plan<Value>, Problem> {
    let cluster = entry.cluster.id.as_str();
    let mut compares = vec![Compare::at(&token.key, token.revision), entry.exists()];
    #[cfg(test)]
    museum::forget(&token, &mut compares);
    let taken = || refuse::name_taken("node", &registration.name, "remove the old node or choose another name");

    let name_key = key(internal(cluster, "nodenames", &registration.name))?;
    let held = record(view, &name_key)?;
    if let Some((held, revision)) = &held {
        let node = NODES.get(view, cluster, "", text(held, "/node"))?;
        if node.is_some_and(|node| node.uid() == text(held, "/node_id") && !node.is_terminating()) {
            return Err(taken());
        }
        // Its Node is gone without it: free all the same.
        compares.push(Compare::at(&name_key, *revision));
    } else {
        compares.push(Compare::absent(&name_key));
    }

    let mut name = slug(&registration.name, id);
    if is_object_name(&registration.name) {
        match NODES.get(view, cluster, "", &registration.name)? {
            None => name.clone_from(&registration.name),
            // A Node that is being deleted is no live one, but its object keeps the name until it goes.
            Some(node) if node.is_terminating() => {}
            Some(_) => return Err(taken()),
        }
    }

    let (subnet, pod_cidr, free) = lowest_free_subnet(view, &entry.cluster)?;
    let subnet_key = key(internal(cluster, "subnets", &subnet))?;
    compares.push(free);

    let digest = secret.digest();
    let node_token_key = key(internal(cluster, "nodetokens", digest.as_str()))?;
    compares.push(Compare::absent(&node_token_key));

    let ops = vec![
        spend(call, &token),
        put_record(&name_key, &holdings(digest.as_str(), &name, id, &subnet)),
        put_record(&subnet_key, &json!({"node_id": id, "node": name})),
        put_record(&node_token_key, &json!({"node_id": id, "node_name": name})),
    ];
    let admitted = Admitted { identity: Identity::control_plane(), cluster: entry.cluster.clone() };
    let target = Target::new(call, admitted, NODES.kind(), "", &name);
    let made = target.create(view, registration.node(&name, pod_cidr, now_ms), id)?;
    let node_key = key(NODES.key(cluster, "", &name))?;
    Ok(made.relying_on(compares).also(ops).map(|value| {
        let stored = Stored { key: node_key, value };
        json!({
            "node": view_of::render(cluster, &stored, None),
            "allocation": view_of::allocation(&entry.cluster, &stored),
            "node_token": secret.plain(),
        })
    }))
}

fn key(key: Option<Key>) -> Result<Key, Problem> {
    key.ok_or_else(|| refuse::invalid("name", "name is too long", &["a shorter name"], Value::Null))
}

/// One use less; the last one ends the token.
fn spend(call: &Call<'_>, token: &JoinToken) -> Op {
    if token.uses_left <= 1 {
        return Op::delete(&token.key);
    }
    let mut left = token.record.clone();
    left["uses_left"] = json!(token.uses_left - 1);
    let ttl_ms = token.expires_at_ms.saturating_sub(call.replica().cluster_time_ms()).max(1);
    put_record_for(&token.key, &left, ttl_ms)
}

/// The lowest block no live node holds: its record's name, the block, and the precondition that it is still free.
fn lowest_free_subnet(view: &View, cluster: &Cluster) -> Result<(String, Ipv4Block, Compare), Problem> {
    let block = Ipv4Block::parse(&cluster.pod_cidr).map_err(refuse::internal)?;
    let prefix = KeyPrefix::resource(&cluster.id, INTERNAL_GROUP, "subnets").map_err(refuse::internal)?;
    let mut next = 0_u64;
    visit(view, &prefix, |key, _| {
        if key.parts().name.parse() == Ok(next) {
            next += 1;
            Ok(std::ops::ControlFlow::Continue(()))
        } else {
            Ok(std::ops::ControlFlow::Break(()))
        }
    })?;
    let Some(part) = block.part(cluster.node_cidr_prefix, next) else {
        return Err(refuse::with(
            Code::PodCidrExhausted,
            format!("no /{} subnet of {} is free", cluster.node_cidr_prefix, cluster.pod_cidr),
        )
        .details(json!({"field": "pod_cidr", "expected": ["a free node subnet"], "received": clip(&cluster.pod_cidr)}))
        .hint("remove a node, or make a cluster with a larger pod_cidr"));
    };
    let name = subnet_name(next);
    let free = key(internal(&cluster.id, "subnets", &name))?;
    Ok((name, part, Compare::absent(&free)))
}
