//! The authorities that sign replicas' certificates, kept by the control plane itself so that any replica can let another
//! one in. Private keys are sealed under the root key, as a Secret's data is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quilt_proto::{Compare, Key};
use quilt_raft::View;
use serde_json::{Value, json};

use super::{Roster, RosterError};
use crate::authn::credential::tenant_range;
use crate::commit::Plan;
use crate::context::RootKey;
use crate::seal;
use crate::store::{put_record, text};

const RESOURCE: &str = "authorities";
const SERVING: &str = "serving";
const PEER: &str = "peer";

/// A certificate and its private key, PEM.
#[derive(Clone)]
pub struct PemPair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for PemPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PemPair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Who signs what a replica shows.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Signs what clients and agents see.
    pub serving: PemPair,
    /// Signs what replicas see of each other.
    pub peer: PemPair,
}

impl Roster {
    /// Gives the authorities into the control plane's keeping, unless it has them.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub async fn keep_authorities(&self, root: &RootKey, authorities: &Authorities) -> Result<(), RosterError> {
        let pairs = [(SERVING, &authorities.serving), (PEER, &authorities.peer)];
        self.write(|view| {
            let (mut compares, mut ops) = (Vec::new(), Vec::new());
            for (name, pair) in pairs {
                let key = key(name)?;
                if view.get(&key)?.is_none() {
                    let sealed = seal::seal(root, name.as_bytes(), pair.key.as_bytes()).map_err(unusable)?;
                    let record = json!({ "certificate": pair.certificate, "sealed_key": STANDARD.encode(sealed) });
                    compares.push(Compare::absent(&key));
                    ops.push(put_record(&key, &record));
                }
            }
            Ok(if ops.is_empty() { Plan::Unchanged(()) } else { Plan::commit(compares, ops, ()) })
        })
        .await
    }

    /// The authorities, if the control plane has them.
    ///
    /// # Errors
    /// See [`RosterError`]; [`RosterError::Stored`] when they do not open under this root key.
    pub fn authorities(view: &View, root: &RootKey) -> Result<Option<Authorities>, RosterError> {
        let pair = |name: &str| -> Result<Option<PemPair>, RosterError> {
            let Some(record) = view.get(&key(name)?)? else { return Ok(None) };
            let record: Value = serde_json::from_slice(&record.value).map_err(unusable)?;
            let sealed = STANDARD.decode(text(&record, "/sealed_key")).map_err(unusable)?;
            let plain = seal::open(root, name.as_bytes(), &sealed).map_err(unusable)?;
            let certificate = text(&record, "/certificate").to_owned();
            Ok(Some(PemPair { certificate, key: String::from_utf8(plain).map_err(unusable)? }))
        };
        Ok(pair(SERVING)?.zip(pair(PEER)?).map(|(serving, peer)| Authorities { serving, peer }))
    }
}

fn key(name: &str) -> Result<Key, RosterError> {
    tenant_range(RESOURCE, "", name).ok_or_else(|| RosterError::Stored("no key for an authority".into()))
}

fn unusable(error: impl std::fmt::Display) -> RosterError {
    RosterError::Stored(format!("the authorities that sign replicas' certificates cannot be used: {error}"))
}
