//! `Idempotency-Key`: a repeated POST has one effect and one answer, whoever asks through whatever, and however late.

use quilt_proto::KeyPrefix;
use serde_json::{Value, json};

use super::{Answer, Joined, Plane, registration};
use crate::store::visit;

/// A request that can be sent again and again.
struct Post {
    path: String,
    credential: (&'static str, String),
    body: Value,
}

impl Post {
    fn new(path: impl Into<String>, credential: (&'static str, &str), body: Value) -> Self {
        Self { path: path.into(), credential: (credential.0, credential.1.into()), body }
    }

    async fn send(&self, plane: &Plane, key: &str) -> Answer {
        let headers = [(self.credential.0, self.credential.1.as_str()), ("Idempotency-Key", key)];
        plane.send("POST", &self.path, &headers, self.body.to_string()).await
    }
}

fn is_replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

/// The same but for the id of the request, which is each request's own.
fn same(one: &Answer, two: &Answer) -> bool {
    let plain = |answer: &Answer| {
        let mut body = answer.body.clone();
        if let Some(body) = body.as_object_mut() {
            body.remove("request_id");
        }
        (answer.status, body)
    };
    plain(one) == plain(two)
}

fn joined(body: &Value) -> Joined {
    Joined {
        cluster: body["node"]["cluster_id"].as_str().expect("cluster").into(),
        id: body["node"]["id"].as_str().expect("id").into(),
        token: body["node_token"].as_str().expect("token").into(),
        answer: body.clone(),
    }
}

/// Each POST of each route: sent again it changes nothing and says the same, secrets and all, also when the token it
/// was sent with is spent by then; sent with another body it is refused.
#[tokio::test]
async fn every_post_can_be_repeated() {
    let plane = Plane::start().await;
    let own = ("X-Api-Key", plane.key.as_str());
    let operator = ("X-Quilt-Admin-Key", plane.admin.as_str());
    let twice = async |post: Post, key: &str| {
        let first = post.send(&plane, key).await;
        assert!((200..300).contains(&first.status) && !is_replayed(&first), "{}: {}", post.path, first.body);
        let before = plane.view().await.revision();
        let again = post.send(&plane, key).await;
        assert!(same(&first, &again) && is_replayed(&again), "{}: {} and {}", post.path, first.body, again.body);
        let other = Post { body: json!({"name": "other", "state": "failed"}), ..post };
        let reused = other.send(&plane, key).await;
        reused.refused(409, "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(plane.view().await.revision(), before, "{}: a repetition wrote", other.path);
        first.body
    };
    let made = twice(Post::new("/api/clusters", own, json!({"name": "c", "pod_cidr": "10.0.0.0/16"})), "k").await;
    let id = made["id"].as_str().expect("id");
    let path = format!("/api/clusters/{id}");
    let tenant = twice(Post::new("/api/admin/tenants", operator, json!({"name": "acme"})), "k").await;
    let keys = format!("/api/admin/tenants/{}/keys", tenant["tenant_id"].as_str().expect("id"));
    twice(Post::new(keys, operator, json!({})), "k").await;
    twice(Post::new(format!("{path}/reconcile"), own, json!({})), "k").await;
    let token = twice(Post::new(format!("{path}/join-tokens"), own, json!({"max_uses": 1})), "k").await;
    let join = token["join_token"].as_str().expect("token");
    let agents = format!("/api/agent/clusters/{id}/nodes");
    let join = ("X-Quilt-Join-Token", join);
    let joined = twice(Post::new(format!("{agents}/register"), join, registration("n")), "k").await;
    let node = self::joined(&joined);
    let by_node = ("X-Quilt-Node-Token", node.token.as_str());
    twice(Post::new(node.path("heartbeat"), by_node, json!({"state": "ready"})), "k").await;
    twice(Post::new(node.path("heartbeat"), by_node, json!({"state": "ready"})), "unchanged").await;

    let spec = json!({"name": "w", "replicas": 1, "command": ["x"]});
    let (made, ()) = tokio::join!(twice(Post::new(format!("{path}/workloads"), own, spec), "k"), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        plane.place(id, Some(&node)).await;
    });
    assert_eq!(made["status"]["assigned"], 1, "what was answered is kept, not what was known at first");
    let list = plane.agent(&node, "GET", "placements", Value::Null).await.expect(200);
    let placement = list["assignments"][0]["placement"]["id"].as_str().expect("id");
    let report = node.path(&format!("placements/{placement}/report"));
    twice(Post::new(report, by_node, json!({"state": "running"})), "k").await;
    let drain = format!("{path}/nodes/{}/drain", node.id);
    twice(Post::new(drain, own, json!({})), "k").await;
    twice(Post::new(node.path("deregister"), by_node, json!({})), "k").await;
    plane.agent(&node, "POST", "deregister", Value::Null).await.refused(401, "UNAUTHORIZED");

    // The spent tokens open nothing else, and no plain token is in the state.
    let other = Post::new(node.path("heartbeat"), by_node, json!({"state": "ready"}));
    other.send(&plane, "new").await.refused(401, "UNAUTHORIZED");
    let secrets =
        [&token["join_token"], &joined["node_token"], &tenant["api_key"]].map(|secret| secret.as_str().expect("text"));
    let mut records = 0;
    for range in ["", id] {
        let prefix = KeyPrefix::cluster(range).expect("prefix");
        visit(&plane.view().await, &prefix, |key, record| {
            records += usize::from(key.parts().resource == "idempotency");
            let text = String::from_utf8_lossy(&record.value).into_owned();
            assert!(!secrets.iter().any(|secret| text.contains(secret)), "{key:?}");
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .expect("read");
    }
    assert_eq!(records, 12, "one for each");
}

/// Refusals that rest on state are told again even when the state has changed; all others are judged afresh.
#[tokio::test]
async fn refusals_are_repeated() {
    let plane = Plane::start().await;
    let own = ("X-Api-Key", plane.key.as_str());
    let id = plane.cluster("taken", "10.0.0.0/16", 24).await;
    let make = Post::new("/api/clusters", own, json!({"name": "taken", "pod_cidr": "10.0.0.0/16"}));
    let first = make.send(&plane, "k").await;
    first.refused(409, "NAME_TAKEN");
    let tokens = Post::new(format!("/api/clusters/{id}/join-tokens"), own, json!({}));
    let node = plane.register(&id, "n", json!({})).await;
    let report = Post::new(
        node.path("placements/none/report"),
        ("X-Quilt-Node-Token", &node.token),
        json!({"state": "running"}),
    );
    let missing = report.send(&plane, "k").await;
    missing.refused(404, "NOT_FOUND");
    let again = report.send(&plane, "k").await;
    assert!(same(&missing, &again) && is_replayed(&again));
    assert_eq!(again.headers["x-request-id"].to_str().ok(), again.body["request_id"].as_str(), "its own id");

    plane.tenant("DELETE", &format!("/api/clusters/{id}"), Value::Null).await.expect(200);
    let again = make.send(&plane, "k").await;
    assert!(same(&first, &again) && is_replayed(&again), "the name is free now, the answer stands: {}", again.body);
    let gone = tokens.send(&plane, "k").await;
    gone.refused(404, "NOT_FOUND");
    assert!(is_replayed(&tokens.send(&plane, "k").await));
    make.send(&plane, "new").await.expect(201);

    // Judged afresh: what was wrong with the request itself.
    let bad = Post::new("/api/clusters", own, json!({"name": "x", "pod_cidr": "nowhere"}));
    bad.send(&plane, "bad").await.refused(400, "VALIDATION_FAILED");
    let missing = Post::new("/api/clusters", own, json!({"name": "x"}));
    missing.send(&plane, "bad").await.refused(422, "UNPROCESSABLE_ENTITY");
    let good = Post::new("/api/clusters", own, json!({"name": "x", "pod_cidr": "10.0.0.0/16"}));
    good.send(&plane, "bad").await.expect(201);
    let stranger = Post::new("/api/clusters", ("X-Api-Key", "qk_no"), good.body.clone());
    stranger.send(&plane, "bad").await.refused(401, "UNAUTHORIZED");
    for key in ["a b", "", &"x".repeat(256)] {
        let answer = good.send(&plane, key).await;
        answer.refused(400, "BAD_REQUEST");
        assert_eq!(answer.body["details"]["field"], "Idempotency-Key");
        stranger.send(&plane, key).await.refused(401, "UNAUTHORIZED");
    }
}

/// A key belongs to who asks, where and for what: tenants do not meet in it, a tenant's keys do, and what is refused
/// in a foreign cluster leaves nothing there.
#[tokio::test]
async fn keys_belong_to_principals() {
    let plane = Plane::start().await;
    let tenant = plane.operator("POST", "/api/admin/tenants", json!({"name": "acme"})).await.expect(201);
    let keys = format!("/api/admin/tenants/{}/keys", tenant["tenant_id"].as_str().expect("id"));
    let second = plane.operator("POST", &keys, json!({})).await.expect(201);
    let [acme, second] = [&tenant["api_key"], &second["api_key"]].map(|key| key.as_str().expect("key"));
    let body = json!({"name": "one", "pod_cidr": "10.0.0.0/16"});
    let post = |key: &str| Post::new("/api/clusters", ("X-Api-Key", key), body.clone());
    let first = post(acme).send(&plane, "k").await;
    let by_second = post(second).send(&plane, "k").await;
    assert!(first.status == 201 && same(&first, &by_second) && is_replayed(&by_second));
    let of_other = post(&plane.key).send(&plane, "k").await;
    assert!(of_other.status == 201 && !is_replayed(&of_other) && !same(&first, &of_other));

    let own = of_other.body["id"].as_str().expect("id");
    let foreign = Post::new(format!("/api/clusters/{own}/join-tokens"), ("X-Api-Key", acme), json!({}));
    foreign.send(&plane, "k").await.refused(404, "NOT_FOUND");
    assert!(is_replayed(&foreign.send(&plane, "k").await));
    let prefix = KeyPrefix::cluster(own).expect("prefix");
    let mut left = 0;
    visit(&plane.view().await, &prefix, |key, _| {
        left += usize::from(key.parts().resource == "idempotency");
        Ok(std::ops::ControlFlow::Continue(()))
    })
    .expect("read");
    assert_eq!(left, 0);
}

/// Sent many times at once, a request has one effect and one answer.
#[tokio::test(flavor = "multi_thread")]
async fn twins_get_one_answer() {
    let plane = Plane::start().await;
    let own = ("X-Api-Key", plane.key.as_str());
    let id = plane.cluster("c", "10.0.0.0/16", 24).await;
    let join = plane.join_token(&id, 1).await;
    let posts = [
        Post::new("/api/clusters", own, json!({"name": "twins", "pod_cidr": "10.0.0.0/16"})),
        Post::new(format!("/api/clusters/{id}/join-tokens"), own, json!({})),
        Post::new(format!("/api/clusters/{id}/workloads"), own, json!({"name": "w", "replicas": 1, "command": ["x"]})),
        Post::new(format!("/api/agent/clusters/{id}/nodes/register"), ("X-Quilt-Join-Token", &join), registration("n")),
    ];
    for post in &posts {
        let answers = futures::future::join_all((0..8).map(|_| post.send(&plane, "k"))).await;
        assert_eq!(answers[0].status, 201, "{}: {}", post.path, answers[0].body);
        assert!(answers.iter().all(|answer| same(answer, &answers[0])), "{}: {answers:#?}", post.path);
        assert_eq!(answers.iter().filter(|answer| !is_replayed(answer)).count(), 1, "{}", post.path);
    }
    let list = plane.tenant("GET", &format!("/api/clusters/{id}/workloads"), Value::Null).await.expect(200);
    assert_eq!(list["workloads"].as_array().map(Vec::len), Some(1));
    let list = plane.tenant("GET", &format!("/api/clusters/{id}/nodes"), Value::Null).await.expect(200);
    assert_eq!(list["nodes"].as_array().map(Vec::len), Some(1));
}
