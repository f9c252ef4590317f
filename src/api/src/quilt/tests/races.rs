//! Writes that the state refuses to take: too large, in a cluster that has just gone, or of unknown fate.

use std::cell::Cell;

use http::{HeaderMap, HeaderValue};
use quilt_objects::canonical;
use quilt_proto::Txn;
use quilt_raft::ProposeError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{LONG, Plane};
use crate::quilt::call::{Call, Step};
use crate::quilt::envelope::{Code, Failure, Problem};
use crate::records::OBJECT_BYTES_MAX;
use crate::store::{NODES, put};

/// A write into a cluster that was deleted after the write had been planned is answered as by a request that comes
/// after the deletion; one that is invalid for another reason is a defect, told once.
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
    let call = Call { replica: &plane.replica, headers: &headers, deadline: Instant::now() + LONG, stale: false };
    let late = || {
        let key = NODES.key(&id, "", "late").expect("key");
        Ok(Step::Commit(Txn::new(vec![], vec![put(&key, &json!({"metadata": {"name": "late"}}))]), ()))
    };
    let refusal = async |judge: &dyn Fn(&quilt_raft::View) -> Result<Step<()>, Problem>| {
        let planned = Cell::new(false);
        match call.write(|view| if planned.replace(true) { judge(view) } else { late() }).await.map(|_| ()) {
            Err(Failure::Refused(problem)) => problem.code,
            other => panic!("{other:?}"),
        }
    };
    let tenant = refusal(&|view| call.tenant_cluster(view, &id).map(|_| Step::Done(()))).await;
    assert_eq!(tenant, Code::NotFound);
    let agent = refusal(&|view| call.agent(view, &id, &node.id).map(|_| Step::Done(()))).await;
    assert_eq!(agent, Code::Unauthorized);
    assert_eq!(refusal(&|_| late()).await, Code::Internal);
}

/// A change that would make an object larger than can be stored is refused as too large.
#[tokio::test]
async fn objects_over_the_limit_are_too_large() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let node = |fill: usize| json!({"metadata": {"name": "n", "annotations": {"a": "x".repeat(fill)}}});
    // Room for uid and creation time, and none for a taint.
    let fill = OBJECT_BYTES_MAX - canonical::encode(&node(0)).bytes.len() - 120;
    let uid = plane.make(NODES, &id, node(fill)).await;
    let drain = plane.tenant("POST", &format!("/api/clusters/{id}/nodes/{uid}/drain"), json!({})).await;
    drain.refused(413, "PAYLOAD_TOO_LARGE");
}

/// Nobody learns from a replica that stops what became of a write, so nothing is claimed about it.
#[test]
fn a_stopped_replica_claims_nothing() {
    assert_eq!(Failure::from(ProposeError::Stopped), Failure::FateUnknown);
    assert_eq!(Failure::from(ProposeError::Unknown), Failure::FateUnknown);
}
