//! What only the inside of a replica can show: requests at the edge of their session and of their time.

use quilt_proto::{Key, Op, RequestId, outcome};

use super::*;

/// A request that reaches the log twice takes effect once and gives the same outcome both times; once its owner
/// has acknowledged the outcome, a late copy has no effect at all.
#[tokio::test]
async fn a_request_logged_twice_takes_effect_once() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let inner = &replica.inner;
    let session = inner.requests.session().borrow().expect("registered");
    let key = Key::new("default", "", "configmaps", "default", "a").expect("valid");
    let put = Op::put(&key, "");
    let id = RequestId { session, sequence: 900 };
    let txn = Txn { request_id: Some(id), ..Txn::new(vec![], vec![put]) };
    let log = async |answered_below| {
        loop {
            let mut waiting = inner.answers.expect(std::iter::once(id));
            // What is submitted may be let go without a word, as by a leader that lost its lease: its owner asks again.
            if inner.proposer.submit(session, answered_below, [(txn.clone(), None)]).is_ok()
                && let Ok(Some((_, outcome))) = TypeConfig::timeout(Duration::from_secs(2), waiting.next()).await
            {
                return outcome;
            }
        }
    };
    let first = log(0).await;
    assert!(matches!(first.result, Some(outcome::Result::Applied(_))));
    let revision = inner.applied.mark().revision;
    assert_eq!(log(0).await, first);
    assert!(matches!(log(901).await.result, Some(outcome::Result::Invalid(_))));
    assert_eq!(inner.applied.mark().revision, revision);
}

/// What expires before it can be applied is reported as not applied, and proven so by the log's own clock.
#[tokio::test]
async fn an_expired_request_is_never_applied() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let inner = &replica.inner;
    let session = inner.requests.session().borrow().expect("registered");
    let revision = inner.applied.mark().revision;
    let key = Key::new("default", "", "configmaps", "default", "a").expect("valid");
    let txn = Txn::new(vec![], vec![Op::delete(&key)]);
    let past = inner.clock.now_ms() - 1;
    let answer = inner.requests.begin(session, txn, past, Duration::from_secs(5), None).expect("taken");
    let answer = answer.await.expect("answered");
    let expired =
        matches!(&answer, Answer::Outcome(outcome) if matches!(outcome.result, Some(outcome::Result::Expired(_))));
    assert!(expired || answer == Answer::NotApplied, "{answer:?}");
    assert_eq!(inner.applied.mark().revision, revision);
}
