//! [`Once`]: a POST with an `Idempotency-Key`, and the record by which its repetition gets the first answer.
//!
//! The record is written by the transaction that makes the change, so there is never the one without the other. It is
//! found by a hash of who asks, what, where, and the key; the key itself is stored nowhere, and what is secret in an
//! answer is sealed under a key derived from it. Must not know what routes do.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};
use parking_lot::Mutex;
use quilt_proto::{Compare, Key, Op};
use quilt_raft::{ReadError, View};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::call::Call;
use super::envelope::{Code, Envelope};
use super::refuse;
use super::reply::Reply;
use crate::authn::Digest;
use crate::authn::credential::tenant_range;
use crate::authn::token::internal;
use crate::commit::{Change, Plan};
use crate::context::RootKey;
use crate::problem::Problem;
use crate::seal;
use crate::store::{put_record_for, record};

/// The header.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key.
const KEY_BYTES_MAX: usize = 255;
/// Resource of the records, in the cluster's own range or in the tenant range.
const RECORDS: &str = "idempotency";
/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a repetition waits for the first request to settle what it answers.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Fields of answers that are shown once.
const SECRETS: [&str; 3] = ["api_key", "join_token", "node_token"];
/// Domain of the derived keys.
const SALT: &[u8] = b"quiltd idempotency v1";

/// The key a request carries.
///
/// # Errors
/// 400 when it is not 1 to 255 visible ASCII characters.
pub(crate) fn key_of<'a>(method: &Method, headers: &'a HeaderMap) -> Result<Option<&'a str>, Problem> {
    let mut sent = headers.get_all(HEADER).iter();
    let Some(first) = sent.next().filter(|_| method == Method::POST) else { return Ok(None) };
    let text = first
        .to_str()
        .ok()
        .filter(|text| (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()));
    match text {
        Some(text) if sent.next().is_none() => Ok(Some(text)),
        _ => {
            let expected = format!("1 to {KEY_BYTES_MAX} visible ASCII characters, once");
            Err(refuse::with(Code::BadRequest, format!("Idempotency-Key must be {expected}"))
                .details(json!({"field": "Idempotency-Key", "expected": [expected]})))
        }
    }
}

/// What makes two requests the same one.
pub(crate) struct Scope<'a> {
    /// Who asks: a tenant, a token, the operator.
    pub(crate) principal: &'a str,
    /// The path.
    pub(crate) path: &'a str,
    /// The key.
    pub(crate) key: &'a str,
    /// The cluster the path names.
    pub(crate) cluster: Option<&'a str>,
}

/// One such request.
pub(crate) struct Once {
    /// Name of its record.
    name: String,
    /// Digest of its body.
    request: String,
    cluster: Option<String>,
    seals: RootKey,
    /// The answer the transaction that was sent last would leave.
    kept: Mutex<Option<(Reply, Settled)>>,
}

/// Whether a kept answer is the one that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Yes,
    /// It may show more when it is given.
    NotYet,
}

impl Once {
    /// The request of `scope` with this body.
    pub(crate) fn new(scope: &Scope<'_>, body: &Map<String, Value>) -> Result<Self, Problem> {
        let path = scope.path.trim_end_matches('/');
        let name = Digest::of(&json!([scope.principal, "POST", path, scope.key]).to_string()).as_str().to_owned();
        let mut derived = [0; 32];
        ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, SALT)
            .extract(scope.key.as_bytes())
            .expand(&[name.as_bytes()], ring::hkdf::HKDF_SHA256)
            .and_then(|material| material.fill(&mut derived))
            .map_err(|_| refuse::internal("a key cannot be derived"))?;
        Ok(Self {
            name,
            // The map is ordered: one body has one text.
            request: Digest::of(&json!(body).to_string()).as_str().to_owned(),
            cluster: scope.cluster.map(str::to_owned),
            seals: RootKey::new(derived),
            kept: Mutex::default(),
        })
    }

    /// Where the record lies when it belongs to a change.
    fn home(&self) -> Result<Key, Problem> {
        match &self.cluster {
            Some(cluster) => internal(cluster, RECORDS, &self.name),
            None => tenant_range(RECORDS, "", &self.name),
        }
        .ok_or_else(|| refuse::internal("the key of an idempotency record"))
    }

    /// Where it lies when the request could not even name a cluster of its own.
    fn outside(&self) -> Result<Key, Problem> {
        tenant_range(RECORDS, "", &self.name).ok_or_else(|| refuse::internal("the key of an idempotency record"))
    }

    fn find(&self, view: &View) -> Result<Option<Value>, Problem> {
        for key in [self.home()?, self.outside()?] {
            match record(view, &key) {
                Ok(Some((found, _))) => return Ok(Some(found)),
                Ok(None) | Err(ReadError::Dropped) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Nobody was answered for it yet.
    ///
    /// # Errors
    /// Somebody was; whoever sees this looks for the answer.
    pub(crate) fn must_be_first(&self, view: &View) -> Result<(), Problem> {
        if self.find(view)?.is_some() { Err(reused()) } else { Ok(()) }
    }

    /// What the first request was answered, once that is settled. `None` when there was none.
    ///
    /// # Errors
    /// Whatever keeps the view from answering.
    pub(crate) async fn first_answer(&self, call: &Call<'_>) -> Result<Option<Result<Reply, Problem>>, Problem> {
        let until = call.deadline.min(Instant::now() + SETTLED_WITHIN);
        loop {
            let Some(found) = call.read(|view| self.find(view)).await? else { return Ok(None) };
            if found["settled"] == false && Instant::now() + LOOK_EVERY < until {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            return Ok(Some(self.answer_of(&found)));
        }
    }

    fn answer_of(&self, found: &Value) -> Result<Reply, Problem> {
        if found["request"] != self.request.as_str() {
            return Err(reused());
        }
        if let Some(refusal) = found["refusal"].as_object() {
            return Err(refuse::again(Envelope::recorded(refusal).ok_or_else(|| refuse::internal("a kept refusal"))?));
        }
        let mut body = found["body"].clone();
        if let Some(sealed) = found["sealed"].as_str() {
            let open = |sealed: &str| {
                let sealed = hex::decode(sealed).ok()?;
                let plain = seal::open(&self.seals, self.name.as_bytes(), &sealed).ok()?;
                serde_json::from_slice::<Map<String, Value>>(&plain).ok()
            };
            let secrets = open(sealed).ok_or_else(|| refuse::internal("the secrets of a kept answer do not open"))?;
            if let Some(body) = body.as_object_mut() {
                body.extend(secrets);
            }
        }
        let status = found["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
        Reply::again(status, body).ok_or_else(|| refuse::internal("a kept answer has no status"))
    }

    /// `plan` with the record of the answer it leads to.
    ///
    /// # Errors
    /// A secret cannot be sealed.
    pub(crate) fn keeping<T>(
        &self,
        plan: Plan<T>,
        settled: Settled,
        reply: impl FnOnce(&T) -> Reply,
    ) -> Result<Plan<T>, Problem> {
        match plan {
            Plan::Commit(Change { mut compares, mut ops, answer }) => {
                let (key, reply) = (self.home()?, reply(&answer));
                compares.push(Compare::absent(&key));
                ops.push(self.put(&key, &reply, settled)?);
                *self.kept.lock() = Some((reply, settled));
                Ok(Plan::commit(compares, ops, answer))
            }
            unchanged @ Plan::Unchanged(_) => {
                *self.kept.lock() = None;
                Ok(unchanged)
            }
        }
    }

    fn put(&self, key: &Key, reply: &Reply, settled: Settled) -> Result<Op, Problem> {
        Ok(put_record_for(key, &self.record_of(reply, settled)?, ttl_ms()))
    }

    fn record_of(&self, reply: &Reply, settled: Settled) -> Result<Value, Problem> {
        let mut body = reply.body().clone();
        let mut secrets = Map::new();
        if let Some(body) = body.as_object_mut() {
            for field in SECRETS {
                secrets.extend(body.remove(field).map(|secret| (field.to_owned(), secret)));
            }
        }
        let mut kept = json!({
            "request": self.request, "status": reply.status(), "body": body, "settled": settled == Settled::Yes,
        });
        if !secrets.is_empty() {
            let plain = Value::Object(secrets).to_string();
            let sealed = seal::seal(&self.seals, self.name.as_bytes(), plain.as_bytes()).map_err(refuse::internal)?;
            kept["sealed"] = json!(hex::encode(sealed));
        }
        Ok(kept)
    }

    /// Keeps the answer that is given now, where the change did not, or kept less. It is given whatever comes of this.
    pub(crate) async fn settle(&self, call: &Call<'_>, reply: &Reply) {
        let kept = self.kept.lock().take();
        if kept.as_ref().is_some_and(|(kept, settled)| kept == reply && *settled == Settled::Yes) {
            return;
        }
        let plan = |view: &View| {
            let key = self.home()?;
            if kept.is_none() && self.find(view)?.is_some() {
                return Ok(Plan::Unchanged(()));
            }
            let compares = if kept.is_none() { vec![Compare::absent(&key)] } else { Vec::new() };
            Ok(Plan::commit(compares, vec![self.put(&key, reply, Settled::Yes)?], ()))
        };
        if let Err(error) = call.write_plain(plan).await {
            tracing::debug!(%error, "the answer given was not kept; a repetition gets what the change kept");
        }
    }

    /// Keeps a refusal that rests on state.
    ///
    /// # Errors
    /// It could not be kept, and so must not be given: a repetition could be told otherwise.
    pub(crate) async fn keep_refusal(
        &self,
        call: &Call<'_>,
        envelope: &Envelope,
        admits: impl Fn(&View) -> bool,
    ) -> Result<(), Problem> {
        let plan = |view: &View| {
            self.must_be_first(view)?;
            let key = if admits(view) { self.home()? } else { self.outside()? };
            let kept = json!({"request": self.request, "refusal": envelope.record(), "settled": true});
            Ok(Plan::commit(vec![Compare::absent(&key)], vec![put_record_for(&key, &kept, ttl_ms())], ()))
        };
        call.write_plain(plan).await.map(|_| ())
    }
}

fn ttl_ms() -> u64 {
    u64::try_from(KEPT_FOR.as_millis()).unwrap_or(u64::MAX)
}

fn reused() -> Problem {
    let message = "this Idempotency-Key was used for another request";
    refuse::with(Code::IdempotencyKeyReused, message)
        .details(json!({"field": "Idempotency-Key", "expected": ["the body it was used with, or a new key"]}))
        .hint("choose a new key for a new request")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key is visible ASCII of a limited length, on POST only.
    #[test]
    fn keys_are_checked() {
        let of = |method: Method, text: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, http::HeaderValue::from_bytes(text).expect("a header"));
            key_of(&method, &headers).map(|key| key.map(str::to_owned))
        };
        assert_eq!(of(Method::POST, b"a-1").expect("good"), Some("a-1".into()));
        assert_eq!(of(Method::PUT, b"").expect("ignored"), None);
        assert!(of(Method::POST, &[b'x'; 255]).is_ok());
        for bad in [&b""[..], b"a b", b"\xc3\xa9", &[b'x'; 256]] {
            assert_eq!(of(Method::POST, bad).expect_err("bad").envelope().code, Code::BadRequest);
        }
    }

    /// Who, where, key and cluster decide the record's name, the body its digest; secrets open under the same key only.
    #[test]
    fn records_are_found_by_everything() {
        let once = |principal, path, key| {
            Once::new(&Scope { principal, path, key, cluster: None }, &Map::new()).expect("made")
        };
        let one = once("tenant:a", "/api/clusters", "k");
        assert_eq!(one.name, once("tenant:a", "/api/clusters/", "k").name);
        for other in [once("tenant:b", "/api/clusters", "k"), once("tenant:a", "/api/x", "k")] {
            assert_ne!(one.name, other.name);
        }
        let reply = Reply::created(json!({"api_key": "qk_secret", "name": "n"}));
        let found = one.record_of(&reply, Settled::Yes).expect("sealed");
        assert!(!found.to_string().contains("secret"), "{found}");
        let again = one.answer_of(&found).expect("the answer");
        assert_eq!((again.status(), again.body()), (201, reply.body()));
        let guess = Once { seals: RootKey::new([7; 32]), ..once("tenant:a", "/api/clusters", "k") };
        assert!(guess.answer_of(&found).is_err());
    }
}
