//! Replica tokens: each lets a few replicas in, for a while. Only their digests are stored, and they end by themselves by
//! apply's own clock, so that no replica can take one that another one holds for expired.

use std::collections::BTreeMap;

use quilt_proto::{Compare, KeyPrefix, Op, ReplicaId, Revision};
use quilt_raft::View;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ALL, Entry, JoinedBy, Roster, RosterError, Standing, key, next_free, put, stored};
use crate::authn::credential::{TENANT_RANGE_GROUP, tenant_range};
use crate::authn::secret::{Digest, Secret, SecretKind, fresh_id};
use crate::commit::Plan;
use crate::store::put_record_for;

/// Resource of the records. A restore leaves them out: one of them may have been spent since.
pub(crate) const RESOURCE: &str = "replicatokens";

/// A token that was just made.
#[derive(Debug)]
pub struct NewToken {
    /// Its text, never shown again.
    pub secret: Secret,
    /// What is known of it from now on.
    pub facts: TokenFacts,
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFacts {
    /// By which it is revoked.
    pub token_id: String,
    /// When it was made, in seconds since the Unix epoch.
    pub created_at: u64,
    /// When it ends, likewise, by the clock of the replica that made it.
    pub expires_at: u64,
    /// Replicas it lets in altogether.
    pub max_uses: u64,
    /// Replicas it still lets in.
    pub uses_left: u64,
    /// End by cluster time, which decides.
    pub expires_at_cluster_ms: u64,
}

impl Roster {
    /// Makes a token that lets `max_uses` replicas in within `ttl_secs`.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub async fn create_token(&self, ttl_secs: u64, max_uses: u64) -> Result<NewToken, RosterError> {
        let secret = Secret::draw(SecretKind::ReplicaToken);
        let key = token_key(&secret.digest())?;
        let created_at = self.now_secs();
        let ttl_ms = ttl_secs.saturating_mul(1000);
        let facts = TokenFacts {
            token_id: fresh_id(),
            created_at,
            expires_at: created_at + ttl_secs,
            max_uses,
            uses_left: max_uses,
            expires_at_cluster_ms: self.replica.cluster_time_ms() + ttl_ms,
        };
        self.write(|_| {
            let op = put_record_for(&key, &json!(facts), ttl_ms);
            Ok(Plan::commit(vec![Compare::absent(&key)], vec![op], ()))
        })
        .await?;
        Ok(NewToken { secret, facts })
    }

    /// The tokens that still let somebody in.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub fn tokens(view: &View) -> Result<Vec<TokenFacts>, RosterError> {
        Ok(stored_tokens(view)?.into_iter().map(|(_, _, facts)| facts).collect())
    }

    /// Ends a token.
    ///
    /// # Errors
    /// See [`RosterError`]; [`RosterError::NoToken`].
    pub async fn revoke_token(&self, token_id: &str) -> Result<(), RosterError> {
        self.write(|view| {
            let found = stored_tokens(view)?.into_iter().find(|(_, _, facts)| facts.token_id == token_id);
            let (key, revision, _) = found.ok_or_else(|| RosterError::NoToken(token_id.to_owned()))?;
            Ok(Plan::commit(vec![Compare::at(&key, revision)], vec![Op::delete(&key)], ()))
        })
        .await
    }

    /// Lets the replica with this public key and address in, in the same transaction that spends the token, and gives its
    /// number. One that asks again by the same token and key gets the same number, also when the token is spent by then.
    /// `members` are those raft knows, with their addresses.
    ///
    /// # Errors
    /// See [`RosterError`]; [`RosterError::Token`], [`RosterError::AddressTaken`].
    pub async fn join(
        &self,
        token: &Digest,
        public_key: &Digest,
        address: &str,
        members: &BTreeMap<u64, String>,
    ) -> Result<ReplicaId, RosterError> {
        let joined_by = JoinedBy { token: token.as_str().to_owned(), key: public_key.as_str().to_owned() };
        let since = self.now_secs();
        self.write(|view| {
            let all = stored(view)?;
            let again = all.iter().find(|(_, _, entry)| entry.joined_by.as_ref() == Some(&joined_by));
            match again {
                Some((_, _, entry)) if entry.standing == Standing::Removed => {
                    return Err(RosterError::NumberUsed {
                        id: entry.id,
                        next: next_free(&all, members.keys().copied()),
                    });
                }
                Some((_, _, entry)) if entry.address == address => return Ok(Plan::Unchanged(ReplicaId(entry.id))),
                _ => {}
            }
            let token_key = token_key(token)?;
            let Some(record) = view.get(&token_key)? else { return Err(RosterError::Token) };
            let mut facts = token_facts(&record.value)?;
            let left_ms = facts.expires_at_cluster_ms.saturating_sub(self.replica.cluster_time_ms());
            if facts.uses_left == 0 || left_ms == 0 {
                return Err(RosterError::Token);
            }
            let listed = all.iter().filter(|(_, _, entry)| entry.standing != Standing::Removed);
            let listed = listed.map(|(_, _, entry)| (&entry.id, &entry.address));
            if let Some((id, address)) = listed.chain(members).find(|(_, taken)| *taken == address) {
                return Err(RosterError::AddressTaken { id: *id, address: address.clone() });
            }
            facts.uses_left -= 1;
            let spent = match facts.uses_left {
                0 => Op::delete(&token_key),
                _ => put_record_for(&token_key, &json!(facts), left_ms),
            };
            let id = next_free(&all, members.keys().copied());
            let key = key(id)?;
            let joined_by = Some(joined_by.clone());
            let entry = Entry { id, address: address.to_owned(), standing: Standing::Joining, since, joined_by };
            let compares = vec![Compare::at(&token_key, Revision::new(record.mod_revision)), Compare::absent(&key)];
            Ok(Plan::commit(compares, vec![spent, put(&key, &entry)], ReplicaId(id)))
        })
        .await
    }
}

fn token_key(digest: &Digest) -> Result<quilt_proto::Key, RosterError> {
    tenant_range(RESOURCE, "", digest.as_str()).ok_or_else(|| RosterError::Stored("no key for a digest".into()))
}

fn token_facts(value: &[u8]) -> Result<TokenFacts, RosterError> {
    serde_json::from_slice(value).map_err(|error| RosterError::Stored(format!("a replica token is damaged: {error}")))
}

fn stored_tokens(view: &View) -> Result<Vec<(quilt_proto::Key, Revision, TokenFacts)>, RosterError> {
    let prefix = KeyPrefix::resource("", TENANT_RANGE_GROUP, RESOURCE)
        .map_err(|error| RosterError::Stored(error.to_string()))?;
    let page = view.scan(&prefix, None, ALL)?;
    let token = |(key, record): (quilt_proto::Key, quilt_proto::Record)| {
        Ok((key, Revision::new(record.mod_revision), token_facts(&record.value)?))
    };
    page.records.into_iter().map(token).collect()
}
