//! The roster over a replica in memory.

use std::collections::BTreeMap;

use quilt_raft::Consistency;

use super::*;
use crate::authn::secret::Digest;
use crate::context::RootKey;

const DEADLINE: Duration = Duration::from_secs(10);

async fn roster() -> Roster {
    Roster::new(Replica::memory(ReplicaId(1)).await, DEADLINE)
}

fn founder() -> BTreeMap<u64, String> {
    BTreeMap::from([(1, "cp-1:7443".to_owned())])
}

async fn standing(roster: &Roster, id: u64) -> Option<Standing> {
    let view = roster.replica.read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    let entries = Roster::entries(&view).expect("whole");
    entries.into_iter().find(|entry| entry.id == id).map(|entry| entry.standing)
}

/// A token with two uses lets exactly two in, however many ask at once; each gets its own number; one that asks again is
/// told the number it has.
#[tokio::test]
async fn a_token_lets_in_as_many_as_it_says() {
    let roster = roster().await;
    let token = roster.create_token(600, 2).await.expect("made").secret.digest();
    let members = founder();
    let keys: Vec<(Digest, String)> =
        (0..5).map(|n| (Digest::of(&format!("key {n}")), format!("cp-{n}9:7443"))).collect();
    let asking = keys.iter().map(|(key, address)| roster.join(&token, key, address, &members));
    let answers = futures::future::join_all(asking).await;
    let mut let_in: Vec<u64> = answers.iter().filter_map(|answer| answer.as_ref().ok()).map(|id| id.0).collect();
    let_in.sort_unstable();
    assert_eq!(let_in, [2, 3]);
    for ((key, address), answer) in keys.iter().zip(&answers) {
        let again = roster.join(&token, key, address, &members).await;
        match answer {
            Ok(id) => assert_eq!(again.expect("known"), *id),
            Err(error) => {
                assert!(matches!(error, RosterError::Token), "{error}");
                assert!(matches!(again, Err(RosterError::Token)));
            }
        }
    }
    assert_eq!(standing(&roster, 2).await, Some(Standing::Joining));
}

/// A number that was removed is never given or taken again, by a token or by hand; an address is one replica's.
#[tokio::test]
async fn numbers_and_addresses_are_used_once() {
    let roster = roster().await;
    roster.settle(ReplicaId(1), Standing::Removed).await.expect("noted");
    let used = roster.enlist(ReplicaId(1), "cp-1:7443").await;
    assert!(matches!(used, Err(RosterError::NumberUsed { id: 1, next: 2 })), "{used:?}");
    let token = roster.create_token(600, 9).await.expect("made").secret.digest();
    let first = roster.join(&token, &Digest::of("a"), "cp-2:7443", &founder()).await.expect("let in");
    assert_eq!(first, ReplicaId(2));
    let taken = roster.join(&token, &Digest::of("b"), "cp-2:7443", &founder()).await;
    assert!(matches!(taken, Err(RosterError::AddressTaken { id: 2, .. })), "{taken:?}");
    roster.settle(first, Standing::Member).await.expect("noted");
    roster.settle(first, Standing::Removed).await.expect("noted");
    roster.settle(first, Standing::Member).await.expect("ignored");
    assert_eq!(standing(&roster, 2).await, Some(Standing::Removed));
    let back = roster.join(&token, &Digest::of("a"), "cp-2:7443", &founder()).await;
    assert!(matches!(back, Err(RosterError::NumberUsed { id: 2, next: 3 })), "{back:?}");
    let fresh = roster.join(&token, &Digest::of("b"), "cp-2:7443", &founder()).await.expect("its address is free");
    assert_eq!(fresh, ReplicaId(3));
}

/// A revoked token opens nothing, is listed no more, and cannot be revoked twice.
#[tokio::test]
async fn tokens_are_revoked() {
    let roster = roster().await;
    let made = roster.create_token(600, 1).await.expect("made");
    let view = roster.replica.read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    assert_eq!(Roster::tokens(&view).expect("whole"), std::slice::from_ref(&made.facts));
    roster.revoke_token(&made.facts.token_id).await.expect("revoked");
    let again = roster.revoke_token(&made.facts.token_id).await;
    assert!(matches!(again, Err(RosterError::NoToken(_))));
    let refused = roster.join(&made.secret.digest(), &Digest::of("a"), "cp-2:7443", &founder()).await;
    assert!(matches!(refused, Err(RosterError::Token)));
}

/// Authorities come back as they were given, once, and stay closed to another root key.
#[tokio::test]
async fn authorities_are_kept_sealed() {
    let roster = roster().await;
    let pair = |name: &str| PemPair { certificate: format!("{name} certificate"), key: format!("{name} key") };
    let root = RootKey::new([7; 32]);
    let first = Authorities { serving: pair("serving"), peer: pair("peer") };
    roster.keep_authorities(&root, &first).await.expect("kept");
    let second = Authorities { serving: pair("other"), peer: pair("other") };
    roster.keep_authorities(&root, &second).await.expect("left alone");
    let view = roster.replica.read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    let kept = Roster::authorities(&view, &root).expect("opens").expect("kept");
    assert_eq!((kept.serving.key.as_str(), kept.peer.certificate.as_str()), ("serving key", "peer certificate"));
    assert!(Roster::authorities(&view, &RootKey::new([8; 32])).is_err());
}
