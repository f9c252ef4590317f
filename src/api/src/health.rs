//! `/healthz`, `/livez`, `/readyz` with their checks, `?verbose` and `?exclude=`. Open to everyone, from local
//! knowledge only: a probe must not wait for a leader.

use std::sync::Arc;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use quilt_raft::Consistency;

use crate::context::Api;
use crate::problem::Problem;
use crate::query::Query;
use crate::route::Endpoint;

/// A local read waits for nothing but the first catching up after a start.
const LOCAL_READ: std::time::Duration = std::time::Duration::from_millis(100);

/// One named check and what came of it.
struct Check {
    name: &'static str,
    failure: Option<String>,
}

/// Answers a health endpoint, or one of its checks.
pub(crate) async fn serve(
    api: &Arc<Api>,
    endpoint: Endpoint,
    only: Option<&str>,
    query: &Query,
) -> Result<Response<Body>, Problem> {
    let mut checks = vec![Check { name: "ping", failure: None }];
    if endpoint != Endpoint::Livez {
        checks.push(Check { name: "state", failure: state_failure(api).await });
    }
    if endpoint == Endpoint::Readyz {
        checks.push(Check { name: "bootstrap", failure: bootstrap_failure(api).await });
        let failure = api.draining().borrow().then(|| "this replica is shutting down".to_owned());
        checks.push(Check { name: "shutdown", failure });
    }
    if let Some(only) = only {
        checks.retain(|check| check.name == only);
        if checks.is_empty() {
            return Err(Problem::no_such_path());
        }
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    checks.retain(|check| !excluded.contains(&check.name));
    let name = match endpoint {
        Endpoint::Healthz => "healthz",
        Endpoint::Livez => "livez",
        Endpoint::Readyz => "readyz",
    };
    let failed = checks.iter().any(|check| check.failure.is_some());
    let body = if failed || query.has("verbose") { report(name, &checks, failed) } else { "ok".to_owned() };
    let mut response = Response::new(Body::from(body));
    if failed {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

/// A replica that has no state to read from yet must not get requests.
async fn state_failure(api: &Arc<Api>) -> Option<String> {
    api.replica.read(Consistency::Stale, LOCAL_READ).await.err().map(|error| error.to_string())
}

/// Before the first objects exist, every credential would be refused as unknown.
async fn bootstrap_failure(api: &Arc<Api>) -> Option<String> {
    let view = api.replica.read(Consistency::Stale, LOCAL_READ).await.ok()?;
    let missing = || Some("the control plane's first objects are not made yet".to_owned());
    let Some(key) = crate::authn::credential::tenant_range("clusters", "", "default") else { return missing() };
    match view.get(&key) {
        Ok(Some(_)) => None,
        Ok(None) => missing(),
        Err(error) => Some(error.to_string()),
    }
}

fn report(name: &str, checks: &[Check], failed: bool) -> String {
    let mut text = String::new();
    for check in checks {
        match &check.failure {
            None => text.push_str(&format!("[+]{} ok\n", check.name)),
            Some(why) => text.push_str(&format!("[-]{} failed: {why}\n", check.name)),
        }
    }
    text.push_str(&format!("{name} check {}\n", if failed { "failed" } else { "passed" }));
    text
}
