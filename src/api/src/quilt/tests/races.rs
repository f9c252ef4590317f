//! Writes that the state refuses to take: too large, in a cluster that has just gone, or of unknown fate.

use std::cell::Cell;

use http::{HeaderMap, HeaderValue};
use quilt_objects::canonical;
use quilt_proto::Compare;
use quilt_raft::ProposeError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{LONG, Plane};
use crate::commit::Plan;
use crate::problem::Problem;
use crate::quilt::call::Call;
use crate::quilt::envelope::Code;
use crate::quilt::refuse;
use crate::records::OBJECT_BYTES_MAX;
use crate::store::{NODES, PODS, put};

/// A write into a cluster that was deleted after the write had been planned is answered as by a request that comes
/// after the deletion.
#[tokio::test]
async fn a_write_loses_against_the_deletion_of_its_cluster() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let node = plane.register(&id, "n", json!({})).await;
    plane.tenant("DELETE", &format!("/api/clusters/{id}"), Value::Null).await.expect(200);
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-api-key", &plane.key), ("x-quilt-node-token", &node.token)] {
        headers.insert(name, HeaderValue::from_str(value).expect("a header"));
    }
    let api = super::api(&plane.replica);
    let call = Call { api: &api, headers: &headers, deadline: Instant::now() + LONG, stale: false, once: None };
    let late = || {
        let key = NODES.key(&id, "", "late").expect("key");
        Ok(Plan::commit(vec![], vec![put(&key, &json!({"metadata": {"name": "late"}}))], ()))
    };
    let refusal = async |judge: &dyn Fn(&quilt_raft::View) -> Result<Plan<()>, Problem>| {
        let planned = Cell::new(false);
        match call.write(|view| if planned.replace(true) { judge(view) } else { late() }).await.map(|_| ()) {
            Err(problem) => problem.envelope().code,
            Ok(()) => panic!("a write into a cluster that is gone"),
        }
    };
    let tenant = refusal(&|view| call.tenant_cluster(view, &id).map(|_| Plan::Unchanged(()))).await;
    assert_eq!(tenant, Code::NotFound);
    let agent = refusal(&|view| call.agent(view, &id, &node.id).map(|_| Plan::Unchanged(()))).await;
    assert_eq!(agent, Code::Unauthorized);
}

/// A write that lost against others until it had no turn left is told what they did, where that is an answer by itself, and not only that
/// there were others.
#[tokio::test]
async fn a_write_without_a_turn_left_is_answered_exactly() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    plane.register(&id, "n", json!({})).await;
    let headers = HeaderMap::new();
    let api = super::api(&plane.replica);
    let call = Call { api: &api, headers: &headers, deadline: Instant::now() + LONG, stale: false, once: None };
    let taken = NODES.key(&id, "", "n").expect("key");
    let planned = Cell::new(0_u32);
    let lost = || {
        planned.set(planned.get() + 1);
        let op = put(&taken, &json!({"metadata": {"name": "n"}}));
        Ok(Plan::<()>::commit(vec![Compare::absent(&taken)], vec![op], ()))
    };
    let refused =
        call.write_plain(|_| if planned.get() < 64 { lost() } else { Err(refuse::unauthorized()) }).await.map(|_| ());
    assert_eq!((refused.expect_err("it lost").envelope().code, planned.get()), (Code::Unauthorized, 64));
    planned.set(0);
    let beaten = call.write_plain(|_| lost()).await.map(|_| ());
    assert_eq!(
        (beaten.expect_err("it lost").envelope().code, planned.get()),
        (refuse::no_leader().envelope().code, 65)
    );
}

/// A change that would make an object larger than can be stored is refused as too large.
#[tokio::test]
async fn objects_over_the_limit_are_too_large() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let node = plane.register(&id, "n", json!({})).await;
    let pod = |fill: usize| {
        json!({"metadata": {"name": "p", "namespace": "default", "annotations": {"a": "x".repeat(fill)}},
            "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "i"}]}})
    };
    // Room for uid and creation time, and none for a message.
    let fill = OBJECT_BYTES_MAX - canonical::encode(&pod(0)).bytes.len() - 120;
    let uid = plane.make(PODS, &id, pod(fill)).await;
    let report = json!({"state": "running", "message": "m".repeat(1000)});
    let report = plane.agent(&node, "POST", &format!("placements/{uid}/report"), report).await;
    report.refused(413, "PAYLOAD_TOO_LARGE");
}

/// Nobody learns from a replica that stops what became of a write, so nothing is claimed about it.
#[test]
fn a_stopped_replica_claims_nothing() {
    for error in [ProposeError::Stopped, ProposeError::Unknown] {
        assert!(!Problem::from(error).is_answerable());
    }
}
