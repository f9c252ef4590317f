//! A small HTTP client of one replica, for Kubernetes and Quilt routes. It trusts the cluster's authority only and never retries:
//! what a client of a live replica sees is what the test judges.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// Above every deadline of the server, so that only a hanging answer is cut.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Nobody.
    None,
    /// The admin key, or any other bearer.
    Bearer(String),
    /// A tenant's key.
    ApiKey(String),
    /// A node's token.
    Node(String),
    /// A join token.
    Join(String),
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body; null when it was empty, a string when it was no JSON.
    pub body: Value,
}

impl Reply {
    /// The body of an answer that must have this status.
    ///
    /// # Errors
    /// With the whole answer, when it has another.
    pub fn expect(self, status: u16) -> Result<Value> {
        ensure!(self.status.as_u16() == status, "expected {status}, got {}: {}", self.status, self.body);
        Ok(self.body)
    }
}

/// A client of one replica. Clones share their connections; [`Client::separate`] has its own.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    authority: String,
    credential: Credential,
}

impl Client {
    /// A client of the replica at `base` that trusts `authority` (PEM).
    ///
    /// # Errors
    /// When the authority is no certificate.
    pub fn new(base: &str, authority: &str, credential: Credential) -> Result<Self> {
        // A second installation is refused and harmless.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let certificate = reqwest::Certificate::from_pem(authority.as_bytes())?;
        let http = reqwest::Client::builder()
            .use_rustls_tls()
            .tls_built_in_root_certs(false)
            .add_root_certificate(certificate)
            .no_proxy()
            .build()?;
        Ok(Self { http, base: base.to_owned(), authority: authority.to_owned(), credential })
    }

    /// The same, with connections of its own.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn separate(&self) -> Result<Self> {
        Self::new(&self.base, &self.authority, self.credential.clone())
    }

    /// The same replica, asked by somebody else.
    #[must_use]
    pub fn with(&self, credential: Credential) -> Self {
        Self { credential, ..self.clone() }
    }

    /// A request on its way, for what the short forms do not do.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.credential {
            Credential::None => request,
            Credential::Bearer(token) => request.bearer_auth(token),
            Credential::ApiKey(key) => request.header("x-api-key", key),
            Credential::Node(token) => request.header("x-quilt-node-token", token),
            Credential::Join(token) => request.header("x-quilt-join-token", token),
        }
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When no answer arrives.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply> {
        let response =
            request.timeout(TIMEOUT).send().await.with_context(|| format!("no answer from {}", self.base))?;
        let status = response.status();
        let bytes = response.bytes().await.with_context(|| format!("half an answer from {}", self.base))?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()))
        };
        Ok(Reply { status, body })
    }

    /// Reads.
    ///
    /// # Errors
    /// When no answer arrives.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Creates, or acts.
    ///
    /// # Errors
    /// When no answer arrives.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Replaces.
    ///
    /// # Errors
    /// When no answer arrives.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// Merges.
    ///
    /// # Errors
    /// When no answer arrives.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Reply> {
        let request =
            self.request(Method::PATCH, path).json(body).header("content-type", "application/merge-patch+json");
        self.send(request).await
    }

    /// Deletes.
    ///
    /// # Errors
    /// When no answer arrives.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::DELETE, path)).await
    }
}
