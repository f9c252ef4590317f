//! Letting replicas in: `/api/admin/ca`, `/api/admin/replicas/join` and `/api/admin/replica-tokens`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use quilt_api::authn::Digest;
use quilt_api::roster::{Authorities, PemPair, Roster};
use quilt_raft::Consistency;
use rcgen::CertificateSigningRequestParams;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::refusal::Refusal;
use super::{LINEARIZABLE_READ, Operator};
use crate::assemble::identity;
use crate::cli::peer_address;
use crate::join::token::{ReplicaToken, ca_hash};
use crate::join::{JoinRequest, Joined};
use crate::tls::authority::Authority;

/// Bounds of a token's life, in seconds.
const TTL_SECS: std::ops::RangeInclusive<u64> = 60..=86_400;
/// Bounds of how many replicas a token lets in.
const USES: std::ops::RangeInclusive<u64> = 1..=100;
/// Names a replica may ask for in its certificate.
const NAMES_MAX: usize = 32;

/// Who signs what this API shows. Public: whoever asks believes it by its hash or not at all.
pub(super) async fn ca(State(operator): State<Operator>) -> Response {
    let pem = operator.api.options.serving_ca_pem.clone();
    ([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    ttl_secs: Option<u64>,
    max_uses: Option<u64>,
}

/// Makes a replica token.
pub(super) async fn create_token(
    State(operator): State<Operator>,
    headers: HeaderMap,
    Body(NewToken { ttl_secs, max_uses }): Body<NewToken>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    operator.admin(&headers, Consistency::Linearizable, LINEARIZABLE_READ).await?;
    let within = |name: &str, value: u64, range: std::ops::RangeInclusive<u64>| {
        let expected = format!("{} to {} are expected", range.start(), range.end());
        if range.contains(&value) { Ok(value) } else { Err(Refusal::invalid(format!("{name} is {value}"), expected)) }
    };
    let ttl_secs = within("ttl_secs", ttl_secs.unwrap_or(3600), TTL_SECS)?;
    let max_uses = within("max_uses", max_uses.unwrap_or(1), USES)?;
    let ca_hash = ca_hash(&operator.api.options.serving_ca_pem).map_err(|error| {
        Refusal::conflict(format!("{error:#}"), "tls/ca.crt of this replica must hold the serving CA")
    })?;
    let made = operator.roster.create_token(ttl_secs, max_uses).await?;
    let token = ReplicaToken { secret: made.secret.plain().to_owned(), ca_hash };
    let mut answer = json!(made.facts);
    answer["token"] = json!(token.text());
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Lists replica tokens, without their texts.
pub(super) async fn list_tokens(State(operator): State<Operator>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let view = operator.admin(&headers, Consistency::Linearizable, LINEARIZABLE_READ).await?;
    let mut tokens = Roster::tokens(&view)?;
    tokens.sort_by(|a, b| (a.created_at, &a.token_id).cmp(&(b.created_at, &b.token_id)));
    Ok(Json(json!({ "tokens": tokens })))
}

/// Ends a replica token.
pub(super) async fn revoke_token(
    State(operator): State<Operator>,
    Path(token_id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    operator.admin(&headers, Consistency::Linearizable, LINEARIZABLE_READ).await?;
    operator.roster.revoke_token(&token_id).await?;
    Ok(Json(json!({ "success": true })))
}

/// Lets a replica in. What it must prove is the token; everything it says is judged before the token is spent.
pub(super) async fn join(
    State(operator): State<Operator>,
    headers: HeaderMap,
    Body(request): Body<JoinRequest>,
) -> Result<(StatusCode, Json<Joined>), Refusal> {
    let token = bearer(&headers).ok_or_else(|| Refusal::from(quilt_api::roster::RosterError::Token))?;
    let serving = csr("serving_csr", &request.serving_csr)?;
    let peer = csr("peer_csr", &request.peer_csr)?;
    let address = peer_address(&request.address)
        .map_err(|why| Refusal::invalid(format!("address {:?}: {why}", request.address), "as 10.0.0.4:7443"))?;
    if request.names.len() > NAMES_MAX {
        let error = format!("names has {} entries", request.names.len());
        return Err(Refusal::invalid(error, format!("at most {NAMES_MAX} are taken")));
    }
    let replica = &operator.api.replica;
    let root = &operator.api.options.root_key;
    let view = replica.read(Consistency::Linearizable, LINEARIZABLE_READ).await?;
    let authorities = Roster::authorities(&view, root)?.ok_or_else(|| {
        let hint = "put ca.key and peer-ca.key, as quiltd init made them, into tls/ of a replica and restart it";
        Refusal::conflict("this control plane does not hold the keys of its certificate authorities", hint)
    })?;
    let status = replica.status();
    let members: BTreeMap<u64, String> = status.members.into_iter().map(|one| (one.id.0, one.address)).collect();
    let key = Digest::of(&hex::encode(rcgen::PublicKeyData::subject_public_key_info(&peer.public_key)));
    let id = operator.roster.join(&Digest::of(token), &key, &address, &members).await?;
    let certificates = sign(&authorities, id, &request.names, &serving, &peer)
        .map_err(|error| Refusal::invalid(format!("names: {error:#}"), "DNS names and IP addresses are expected"))?;
    tracing::info!(replica = id.0, address, "a replica was let in");
    Ok((
        StatusCode::CREATED,
        Json(Joined {
            id: id.0,
            control_plane: status.cluster,
            epoch: status.epoch,
            serving_certificate: certificates.0,
            peer_certificate: certificates.1,
            serving_ca: authorities.serving.certificate,
            peer_ca: authorities.peer.certificate,
            root_key: hex::encode(root.bytes()),
            admin_key_sha256: operator.admin_key_sha256.clone(),
        }),
    ))
}

/// The secret part of the token that was sent.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = text.strip_prefix("Bearer ")?.trim();
    Some(token.split_once('.').map_or(token, |(secret, _)| secret))
}

/// A certificate request whose sender has the key it names.
fn csr(field: &str, text: &str) -> Result<CertificateSigningRequestParams, Refusal> {
    CertificateSigningRequestParams::from_pem(text)
        .map_err(|error| Refusal::invalid(format!("{field}: {error}"), "a certificate request in PEM is expected"))
}

fn sign(
    authorities: &Authorities,
    id: quilt_proto::ReplicaId,
    names: &[String],
    serving: &CertificateSigningRequestParams,
    peer: &CertificateSigningRequestParams,
) -> anyhow::Result<(String, String)> {
    let authority = |pair: &PemPair| Authority::from_pair(pair.clone());
    let (common_name, server) = (identity::common_name(id), identity::serving_names(names));
    let serving =
        authority(&authorities.serving).sign(identity::serving_subject(&common_name, server), &serving.public_key)?;
    let peer = authority(&authorities.peer).sign(identity::peer_subject(&common_name, id), &peer.public_key)?;
    Ok((serving, peer))
}
