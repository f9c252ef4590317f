//! [`Session`]: one client, its connections to every replica, and the record of each of its requests. A request is sent once and what
//! came of it is written down as it was; trying again is another request.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::Targets;
use super::meter::{Fate, Meter};
use crate::client::{Client, Credential};
use crate::history::{OperationId, Outcome, Recorder, Request};
use crate::random::Random;

/// A replica as one client reaches it.
#[derive(Debug, Clone)]
struct Line {
    replica: u16,
    client: Client,
}

/// One client.
#[derive(Debug, Clone)]
pub(super) struct Session {
    number: u16,
    lines: Arc<Vec<Line>>,
    admin: Credential,
    tenant: Credential,
    patience: Duration,
    meter: Arc<Meter>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) enum As {
    /// The administrator of the built-in cluster.
    Admin,
    /// The tenant.
    Tenant,
    /// Who holds a join token.
    Joiner(String),
    /// A node.
    Node(String),
}

/// A request to be sent.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) who: As,
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) body: Option<&'a Value>,
    pub(super) header: Option<(&'static str, &'a str)>,
}

impl<'a> Call<'a> {
    pub(super) fn new(who: As, method: Method, path: &'a str) -> Self {
        Self { who, method, path, body: None, header: None }
    }

    pub(super) fn body(mut self, body: &'a Value) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: &'a str) -> Self {
        self.header = Some((name, value));
        self
    }
}

/// What came of a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) id: OperationId,
    pub(super) outcome: Outcome,
    /// The body of a success, else null.
    pub(super) body: Value,
}

impl Answer {
    /// The status of a refusal.
    pub(super) fn refused(&self) -> Option<u16> {
        match self.outcome {
            Outcome::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown { .. })
    }
}

impl Session {
    /// The n-th client of these targets, with connections of its own.
    pub(super) fn new(targets: &Targets, number: u16, patience: Duration, meter: Arc<Meter>) -> Result<Self> {
        let lines = targets.route(number).iter().map(|endpoint| {
            let client = Client::new(&endpoint.base, &targets.authority, Credential::None)?;
            Ok(Line { replica: endpoint.replica, client })
        });
        Ok(Self {
            number,
            lines: Arc::new(lines.collect::<Result<_>>()?),
            admin: Credential::Bearer(targets.admin_token.clone()),
            tenant: Credential::ApiKey(targets.api_key.clone()),
            patience,
            meter,
        })
    }

    /// Places of all replicas, for asking each.
    pub(super) fn places(&self) -> std::ops::Range<usize> {
        0..self.lines.len()
    }

    /// Any replica.
    pub(super) fn any(&self, random: &mut Random) -> usize {
        usize::try_from(random.below(self.lines.len() as u64)).unwrap_or(0)
    }

    /// The replica at a place.
    pub(super) fn replica(&self, place: usize) -> u16 {
        self.lines[place % self.lines.len()].replica
    }

    /// A request that is not recorded, for watches and for what is no part of the history.
    pub(super) fn request(&self, place: usize, call: &Call<'_>) -> RequestBuilder {
        let credential = match &call.who {
            As::Admin => self.admin.clone(),
            As::Tenant => self.tenant.clone(),
            As::Joiner(token) => Credential::Join(token.clone()),
            As::Node(token) => Credential::Node(token.clone()),
        };
        let line = &self.lines[place % self.lines.len()];
        let mut request = line.client.with(credential).request(call.method.clone(), call.path);
        if let Some(body) = call.body {
            // `json` sets the content type only where none is given.
            if call.method == Method::PATCH {
                request = request.header("content-type", "application/merge-patch+json");
            }
            request = request.json(body);
        }
        if let Some((name, value)) = call.header {
            request = request.header(name, value);
        }
        request
    }

    /// Sends a request and records it; `read` makes an outcome of the body of a success.
    pub(super) async fn ask(
        &self,
        recorder: &Recorder,
        place: usize,
        call: Call<'_>,
        request: Request,
        read: impl FnOnce(&Value) -> Outcome + Send,
    ) -> Answer {
        let sending = self.request(place, &call).timeout(self.patience);
        let pending = recorder.invoke(self.number, self.replica(place), request);
        let (outcome, body) = match exchange(sending).await {
            Err(error) => (Outcome::Unknown { why: format!("{error:#}") }, Value::Null),
            Ok((status, Value::Null)) if status < 300 => {
                (Outcome::Unknown { why: format!("{status} with a body that is no JSON") }, Value::Null)
            }
            Ok((status, body)) if status < 300 => (read(&body), body),
            Ok((status, body)) => {
                let reason = body["reason"].as_str().or_else(|| body["error_code"].as_str());
                let reason = reason.map_or_else(|| told(&body), str::to_owned);
                (Outcome::Refused { code: status, reason }, body)
            }
        };
        self.meter.request(match &outcome {
            Outcome::Unknown { .. } => Fate::Unknown,
            Outcome::Refused { .. } => Fate::Refused,
            _ => Fate::Acknowledged,
        });
        let id = pending.returned(outcome.clone());
        Answer { id, outcome, body }
    }
}

/// The first words of a body that has no reason.
fn told(body: &Value) -> String {
    body.to_string().chars().take(120).collect()
}

async fn exchange(request: RequestBuilder) -> Result<(u16, Value), reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let bytes = response.bytes().await?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
}
