//! Who a key belongs to: tenant API keys and admin keys, looked up by digest in the tenant range.
//!
//! Used by the Quilt routes and by the Kubernetes surface alike. Must not know routes or answers; "no" is `None` and
//! what a caller says about it is one message for every cause.

use http::HeaderMap;
use quilt_proto::{Compare, Key, Revision};
use quilt_raft::{ReadError, View};
use serde_json::{Value, json};

use super::secret::Digest;

/// Header of a tenant's API key.
pub const API_KEY_HEADER: &str = "x-api-key";
/// Header of the admin key.
pub const ADMIN_KEY_HEADER: &str = "x-quilt-admin-key";

/// Who presented a good credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// The operator; belongs to no tenant.
    Admin,
    /// A tenant, by one of its keys.
    Tenant {
        /// The tenant's id.
        id: String,
    },
}

/// A principal with what a commit must still find true.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Who.
    pub principal: Principal,
    /// The credential and its tenant are as they were when they were judged.
    pub compares: Vec<Compare>,
}

/// The digests of the credentials of one request, in the order they are tried. Made without any state.
#[derive(Clone, Debug, Default)]
pub struct Presented {
    candidates: Vec<Digest>,
}

impl Presented {
    /// Credentials that may open a tenant's route: `X-Api-Key` first, then Bearer.
    #[must_use]
    pub fn for_tenant(headers: &HeaderMap) -> Self {
        Self::of([header(headers, API_KEY_HEADER), bearer(headers)])
    }

    /// Credentials that may open an admin route: `X-Quilt-Admin-Key` first, then Bearer.
    #[must_use]
    pub fn for_admin(headers: &HeaderMap) -> Self {
        Self::of([header(headers, ADMIN_KEY_HEADER), bearer(headers)])
    }

    /// Every key of the request, for the Kubernetes surface, which takes all kinds.
    #[must_use]
    pub fn any(headers: &HeaderMap) -> Self {
        Self::of([header(headers, API_KEY_HEADER), header(headers, ADMIN_KEY_HEADER), bearer(headers)])
    }

    fn of<const N: usize>(texts: [Option<&str>; N]) -> Self {
        Self { candidates: texts.into_iter().flatten().map(Digest::of).collect() }
    }

    /// Nothing was presented: a refusal needs no look at the state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// The first presented credential that is good in `view` and that `accept` wants.
    ///
    /// # Errors
    /// Whatever keeps the view from answering.
    pub fn prove(&self, view: &View, accept: impl Fn(&Principal) -> bool) -> Result<Option<Proof>, ReadError> {
        for digest in &self.candidates {
            if let Some(proof) = prove(view, digest)?
                && accept(&proof.principal)
            {
                return Ok(Some(proof));
            }
        }
        Ok(None)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then_some(text)
}

/// The value of `Authorization: Bearer`, the scheme in any case.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, value) = header(headers, "authorization")?.split_once(' ')?;
    let value = value.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !value.is_empty()).then_some(value)
}

/// Group of the records in the tenant range.
pub(crate) const TENANT_RANGE_GROUP: &str = "quilt.sh";

/// Key of a record in the tenant range.
///
/// # Panics
/// Never for digests and UUIDs; the names of tenants and clusters are checked before they come here.
#[must_use]
pub fn tenant_range(resource: &str, namespace: &str, name: &str) -> Option<Key> {
    Key::new("", TENANT_RANGE_GROUP, resource, namespace, name).ok()
}

fn prove(view: &View, digest: &Digest) -> Result<Option<Proof>, ReadError> {
    let Some(key) = tenant_range("credentials", "", digest.as_str()) else { return Ok(None) };
    let Some(record) = view.get(&key)? else { return Ok(None) };
    let stored: Value = serde_json::from_slice(&record.value).unwrap_or_default();
    let unchanged = Compare::at(&key, Revision::new(record.mod_revision));
    match (stored["kind"].as_str(), stored["tenant_id"].as_str()) {
        (Some("admin"), _) => Ok(Some(Proof { principal: Principal::Admin, compares: vec![unchanged] })),
        (Some("tenant"), Some(id)) => {
            let Some(tenant_key) = tenant_range("tenants", "", id) else { return Ok(None) };
            let Some(tenant) = view.get(&tenant_key)? else { return Ok(None) };
            let facts: Value = serde_json::from_slice(&tenant.value).unwrap_or_default();
            if facts["disabled"].as_bool().unwrap_or(false) {
                return Ok(None);
            }
            let compares = vec![unchanged, Compare::at(&tenant_key, Revision::new(tenant.mod_revision))];
            Ok(Some(Proof { principal: Principal::Tenant { id: id.into() }, compares }))
        }
        _ => Ok(None),
    }
}

/// The stored form of a tenant's API key.
#[must_use]
pub fn api_key_record(tenant_id: &str, key_id: &str, created_at: u64) -> Value {
    json!({"kind": "tenant", "tenant_id": tenant_id, "key_id": key_id, "created_at": created_at})
}

/// The stored form of an admin key.
#[must_use]
pub fn admin_key_record(key_id: &str, created_at: u64) -> Value {
    json!({"kind": "admin", "key_id": key_id, "created_at": created_at})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Bearer` is read in any case, with any spacing, and only it.
    #[test]
    fn bearer_values_are_found() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("Authorization", value.parse().expect("header"));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with("Bearer qk_x"), Some("qk_x".into()));
        assert_eq!(with("bEARER   qk_x "), Some("qk_x".into()));
        assert_eq!(with("Basic qk_x"), None);
        assert_eq!(with("Bearer "), None);
        assert_eq!(with("qk_x"), None);
    }
}
