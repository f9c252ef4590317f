//! How a host becomes a node: by the identity it already has, or by registering with a join token.
//!
//! A registration spends a use of the token and takes a name, so its answer must not be lost: the attempt, its `Idempotency-Key` and its
//! exact body are on disk before it is sent, and a later attempt, also by a restarted agent, repeats it and gets the first answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::client::{Answer, Call, ControlPlane, Pause};
use crate::error::AgentError;
use crate::identity::{DataDirectory, Identity, Registration};
use crate::options::AgentOptions;
use crate::session::{Session, SessionError};

/// Interface of the node's pods. This agent makes no bridge; the name is what Quilt's allocation is asked for.
const BRIDGE_NAME: &str = "quilt0";
/// Port of the node's name service, likewise.
const DNS_PORT: u16 = 1053;

/// What this host offers as a node.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) kubelet_port: u16,
    pub(crate) kubelet_cert_sha256: String,
    pub(crate) version: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) capacity: Value,
}

impl Offer {
    /// What registration and heartbeats have in common.
    pub(crate) fn fields(&self) -> Value {
        json!({
            "private_ip": self.address.to_string(),
            "agent_version": self.version,
            "capacity": self.capacity,
            "kubelet_port": self.kubelet_port,
            "kubelet_cert_sha256": self.kubelet_cert_sha256,
        })
    }
}

/// Resumes as the node this directory belongs to, or joins as a new one. Waits for as long as no server answers.
pub(crate) async fn enrol(
    options: &AgentOptions,
    data: &DataDirectory,
    control: &ControlPlane,
    offer: &Offer,
) -> Result<Session, AgentError> {
    if let Some(identity) = data.identity()? {
        if identity.cluster != options.cluster {
            return Err(AgentError::OtherCluster {
                path: options.data_dir.clone(),
                cluster: identity.cluster,
                name: identity.name,
            });
        }
        let name = identity.name.clone();
        let session = Session::new(control.clone(), &identity);
        if still_admitted(&session).await? {
            return Ok(session);
        }
        if options.join_token_file.is_none() {
            return Err(AgentError::NodeRemoved { name });
        }
        warn!(node = %name, "the node was removed from its cluster; joining as a new one");
        data.set_identity_aside()?;
    }
    let Some(token_file) = &options.join_token_file else {
        return Err(AgentError::JoinTokenMissing);
    };
    let token = read_token(token_file)?;
    let identity = register(options, data, control, offer, &token).await?;
    data.keep_identity(&identity)?;
    Ok(Session::new(control.clone(), &identity))
}

/// Whether the node's token still opens its routes.
async fn still_admitted(session: &Session) -> Result<bool, AgentError> {
    let mut pause = Pause::default();
    loop {
        match session.allocation().await {
            Ok(_) => return Ok(true),
            Err(SessionError::Removed) => return Ok(false),
            Err(SessionError::Refused { status, message }) => {
                return Err(AgentError::RegistrationRefused { status, message });
            }
            Err(SessionError::Unavailable(reason)) => {
                warn!(%reason, "waiting for the control plane");
                pause.wait().await;
            }
        }
    }
}

async fn register(
    options: &AgentOptions,
    data: &DataDirectory,
    control: &ControlPlane,
    offer: &Offer,
    token: &str,
) -> Result<Identity, AgentError> {
    let mut registration = match data.registration()? {
        Some(pending) if pending.cluster == options.cluster => pending,
        _ => {
            let fresh = Registration {
                cluster: options.cluster.clone(),
                idempotency_key: fresh_key()?,
                body: body(offer),
                answer_was_lost: false,
            };
            data.keep_registration(&fresh)?;
            fresh
        }
    };
    let call = Call::post(format!("/api/agent/clusters/{}/nodes/register", options.cluster), registration.body.clone())
        .header("x-quilt-join-token", token)
        .header("idempotency-key", registration.idempotency_key.clone());
    let mut pause = Pause::default();
    loop {
        match control.send(&call).await {
            Ok(answer) if answer.is_success() => {
                return admitted(options, &answer);
            }
            Ok(answer) => {
                // A refusal is final for this key: what it was recorded with would be answered again.
                data.forget_registration()?;
                return Err(refusal(options, &registration, &answer));
            }
            Err(unavailable) => {
                if unavailable.fate_unknown && !registration.answer_was_lost {
                    registration.answer_was_lost = true;
                    data.keep_registration(&registration)?;
                }
                warn!(reason = %unavailable, "registration waits for the control plane");
                pause.wait().await;
            }
        }
    }
}

fn body(offer: &Offer) -> Value {
    let mut body = offer.fields();
    body["name"] = json!(offer.name);
    body["labels"] = json!(offer.labels);
    body["bridge_name"] = json!(BRIDGE_NAME);
    body["dns_port"] = json!(DNS_PORT);
    body["egress_limit_mbit"] = json!(0);
    body["gpu_devices"] = json!([]);
    body["pod_agent"] = json!(true);
    body
}

fn admitted(options: &AgentOptions, answer: &Answer) -> Result<Identity, AgentError> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let identity = (|| {
        Some(Identity {
            cluster: options.cluster.clone(),
            node_id: text(&answer.body["node"]["id"])?,
            name: text(&answer.body["node"]["name"])?,
            token: text(&answer.body["node_token"])?,
            allocation: answer.body["allocation"].clone(),
        })
    })();
    let identity = identity.ok_or_else(|| AgentError::RegistrationRefused {
        status: answer.status,
        message: "the answer lacks node.id, node.name or node_token".to_owned(),
    })?;
    info!(node = %identity.name, pod_cidr = %identity.allocation["pod_cidr"], "registered");
    Ok(identity)
}

fn refusal(options: &AgentOptions, registration: &Registration, answer: &Answer) -> AgentError {
    match (answer.status, answer.code()) {
        (401, _) => AgentError::JoinTokenRefused { cluster: options.cluster.clone() },
        (409, "NAME_TAKEN") => AgentError::NameTaken {
            name: registration.body["name"].as_str().unwrap_or_default().to_owned(),
            answer_was_lost: registration.answer_was_lost,
        },
        (status, _) => AgentError::RegistrationRefused { status, message: answer.problem() },
    }
}

fn read_token(path: &Path) -> Result<String, AgentError> {
    let text = std::fs::read_to_string(path).map_err(AgentError::file(path))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AgentError::Content {
            path: path.to_owned(),
            reason: "a join token is one line of visible characters".to_owned(),
        });
    }
    Ok(token.to_owned())
}

fn fresh_key() -> Result<String, AgentError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_unspecified| AgentError::Tls("the system gives no random numbers".to_owned()))?;
    Ok(hex::encode(bytes))
}
