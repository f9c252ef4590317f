//! Bad input: the documented status, a message that names what is wrong, nothing stored, the next request served.

use http::Method;
use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, PODS, Plane, config_map, deployment, pod};

/// A table of broken requests: each is refused as documented, and nothing of it is stored.
#[tokio::test]
async fn broken_requests_are_refused() {
    let plane = Plane::start().await;
    plane.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let a = format!("{CONFIG_MAPS}/a");
    let json = "application/json";
    let big = format!(r#"{{"metadata":{{"name":"big"}},"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20));
    let large = format!(r#"{{"metadata":{{"name":"large"}},"revision":1,"data":{{"a":"{}"}}}}"#, "x".repeat(2 << 20));
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let post = Method::POST;
    let cases: Vec<(Method, String, &str, String, u16, &str)> = vec![
        (post.clone(), CONFIG_MAPS.into(), json, "{".into(), 400, "not valid JSON"),
        (post.clone(), CONFIG_MAPS.into(), json, String::new(), 400, ""),
        (post.clone(), CONFIG_MAPS.into(), json, "[]".into(), 400, "object"),
        (post.clone(), CONFIG_MAPS.into(), json, "\u{0}\u{1}".into(), 400, ""),
        (post.clone(), CONFIG_MAPS.into(), json, "[".repeat(100_000), 400, ""),
        (post.clone(), CONFIG_MAPS.into(), json, r#"{"metadata":{"name":"b"},"data":{"x":1}}"#.into(), 400, "data"),
        (post.clone(), CONFIG_MAPS.into(), json, r#"{"metadata":{"name":5}}"#.into(), 400, "metadata.name"),
        (post.clone(), CONFIG_MAPS.into(), json, r#"{"kind":"Pod","metadata":{"name":"b"}}"#.into(), 400, "kind"),
        (post.clone(), CONFIG_MAPS.into(), json, r#"{"apiVersion":"v2","metadata":{"name":"b"}}"#.into(), 400, "v2"),
        (post.clone(), CONFIG_MAPS.into(), json, r#"{"data":{}}"#.into(), 422, "metadata.name"),
        (post.clone(), CONFIG_MAPS.into(), json, r#"{"metadata":{"name":"Not_A_Name"}}"#.into(), 422, "metadata.name"),
        (
            post.clone(),
            CONFIG_MAPS.into(),
            json,
            r#"{"metadata":{"name":"b","resourceVersion":"5"}}"#.into(),
            400,
            "resourceVersion",
        ),
        (post.clone(), CONFIG_MAPS.into(), json, big, 413, "3145728"),
        (post.clone(), revisions.into(), json, large, 413, "1572864"),
        (post.clone(), CONFIG_MAPS.into(), "application/cbor", "x".into(), 415, "application/json"),
        (post.clone(), CONFIG_MAPS.into(), "application/vnd.kubernetes.protobuf", "x".into(), 400, "protobuf"),
        (
            post.clone(),
            CONFIG_MAPS.into(),
            "application/vnd.kubernetes.protobuf",
            "k8s\0\u{7f}".into(),
            400,
            "protobuf",
        ),
        (post.clone(), CONFIG_MAPS.into(), "application/yaml", "a: [".into(), 400, "YAML"),
        (post.clone(), format!("{CONFIG_MAPS}?dryRun=Some"), json, "{}".into(), 400, "dryRun"),
        (post.clone(), format!("{CONFIG_MAPS}?fieldValidation=Loose"), json, "{}".into(), 400, "fieldValidation"),
        (post.clone(), format!("{CONFIG_MAPS}?timeout=soon"), json, "{}".into(), 400, "timeout"),
        (post.clone(), "/api/v1/configmaps".into(), json, "{}".into(), 405, "create"),
        (post.clone(), "/api/v1/namespaces/default/unicorns".into(), json, "{}".into(), 404, ""),
        (post.clone(), "/apis/apps/v9/namespaces/default/deployments".into(), json, "{}".into(), 404, ""),
        (post, "/api/v1".into(), json, "{}".into(), 405, ""),
        (Method::PUT, a.clone(), json, r#"{"metadata":{"name":"other"}}"#.into(), 400, "other"),
        (
            Method::PUT,
            a.clone(),
            json,
            r#"{"metadata":{"name":"a","resourceVersion":"1"},"data":{}}"#.into(),
            409,
            "modified",
        ),
        (Method::PUT, a.clone(), json, r#"{"metadata":{"name":"a","uid":"x"},"data":{}}"#.into(), 409, "UID"),
        (Method::PUT, CONFIG_MAPS.into(), json, "{}".into(), 405, ""),
        (Method::PATCH, a.clone(), "application/xml", "{}".into(), 415, "merge-patch"),
        (Method::PATCH, a.clone(), "application/json-patch+json", "{}".into(), 400, ""),
        (Method::PATCH, a.clone(), "application/merge-patch+json", "[]".into(), 400, ""),
        (Method::PATCH, a.clone(), "application/merge-patch+json", r#"{"data":{"a":1}}"#.into(), 400, "data"),
        (Method::PATCH, a.clone(), "application/merge-patch+json", r#"{"metadata":{"name":"z"}}"#.into(), 400, "z"),
        (Method::PATCH, a.clone(), "application/apply-patch+yaml", "metadata: {name: a}".into(), 400, "fieldManager"),
        (
            Method::PATCH,
            a.clone(),
            "application/merge-patch+json",
            r#"{"metadata":{"resourceVersion":"1"},"data":{"a":"z"}}"#.into(),
            409,
            "modified",
        ),
        (
            Method::DELETE,
            a.clone(),
            json,
            r#"{"preconditions":{"resourceVersion":"1"}}"#.into(),
            409,
            "ResourceVersion",
        ),
        (Method::POST, format!("{PODS}/none/exec"), json, String::new(), 405, "pods/exec is not served"),
        (Method::DELETE, a.clone(), json, r#"{"propagationPolicy":"Sideways"}"#.into(), 400, "Sideways"),
        (Method::DELETE, a.clone(), json, r#"{"gracePeriodSeconds":-1}"#.into(), 400, "gracePeriodSeconds"),
        (Method::DELETE, a.clone(), json, r#"{"preconditions":{"uid":"x"}}"#.into(), 409, "UID"),
        (Method::DELETE, a.clone(), json, "{".into(), 400, ""),
        (Method::GET, format!("{CONFIG_MAPS}?labelSelector=a%20in%20("), "", String::new(), 400, "labelSelector"),
        (Method::GET, format!("{CONFIG_MAPS}?fieldSelector=data.a%3Db"), "", String::new(), 400, "fieldSelector"),
        (Method::GET, format!("{CONFIG_MAPS}?limit=many"), "", String::new(), 400, "limit"),
        (Method::GET, format!("{CONFIG_MAPS}?continue=nonsense"), "", String::new(), 400, "continue"),
        (Method::GET, format!("{CONFIG_MAPS}?resourceVersion=latest"), "", String::new(), 400, "resourceVersion"),
        (Method::GET, format!("{CONFIG_MAPS}?watch=perhaps"), "", String::new(), 400, "watch"),
        (Method::GET, format!("{CONFIG_MAPS}?x=%zz"), "", String::new(), 400, ""),
        (Method::GET, format!("{CONFIG_MAPS}/%2e%ff"), "", String::new(), 400, ""),
        (Method::GET, format!("{CONFIG_MAPS}/a/unknown"), "", String::new(), 404, ""),
        (Method::GET, format!("{CONFIG_MAPS}/a/scale"), "", String::new(), 404, ""),
        (Method::GET, "/api/v1/namespaces/default/nodes".into(), "", String::new(), 404, ""),
        (Method::GET, "/nowhere".into(), "", String::new(), 404, ""),
        (Method::OPTIONS, CONFIG_MAPS.into(), "", String::new(), 405, ""),
    ];
    let before = plane.get(CONFIG_MAPS).await.expect(200);
    let mut wrong = Vec::new();
    for (method, path, content_type, body, status, names) in cases {
        let shown = format!("{method} {path} {}", body.chars().take(60).collect::<String>());
        let answer = plane.with_body(method, &path, content_type, body).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        if answer.status != status || answer.body["code"] != status || !message.contains(names) {
            wrong.push(format!("{shown}: {} instead of {status} naming {names:?}: {message:?}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(plane.get(CONFIG_MAPS).await.expect(200), before, "nothing was stored");
}

/// Unknown and duplicate fields: warned of by default, refused in strict mode, silent when ignored.
#[tokio::test]
async fn unknown_fields() {
    let plane = Plane::start().await;
    let body = r#"{"metadata":{"name":"u"},"data":{"a":"1","a":"2"},"colour":"red"}"#;
    let json = "application/json";
    let strict = plane.with_body(Method::POST, &format!("{CONFIG_MAPS}?fieldValidation=Strict"), json, body).await;
    let message = strict.refusal(400, "BadRequest")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("unknown field \"colour\"") && message.contains("duplicate field"), "{message}");
    let warned = plane.with_body(Method::POST, CONFIG_MAPS, json, body).await;
    assert_eq!(warned.headers.get_all("warning").iter().count(), 2);
    assert_eq!(warned.expect(201)["colour"], Value::Null);
    plane.delete(&format!("{CONFIG_MAPS}/u"), &Value::Null).await.expect(200);
    let silent = plane.with_body(Method::POST, &format!("{CONFIG_MAPS}?fieldValidation=Ignore"), json, body).await;
    assert!(silent.headers.get("warning").is_none());
}

/// Field errors are causes; reserved fields belong to the control plane.
#[tokio::test]
async fn invalid_objects_name_their_fields() {
    let plane = Plane::start().await;
    let mut wrong = deployment("d", 1);
    wrong["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    let refused = plane.post(DEPLOYMENTS, &wrong).await.refusal(422, "Invalid");
    assert!(refused["details"]["causes"].as_array().is_some_and(|causes| !causes.is_empty()));
    let mut empty = pod("p");
    empty["spec"]["containers"] = json!([]);
    let refused = plane.post(PODS, &empty).await.refusal(422, "Invalid");
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.containers");
    let mut reserved = pod("p");
    reserved["metadata"]["annotations"] = json!({"quilt.sh/placement-id": "x"});
    let refused = plane.post(PODS, &reserved).await.refusal(403, "Forbidden");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("quilt.sh/placement-id")));
}
