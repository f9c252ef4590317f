//! How a command reaches a replica: the flags every client command shares, and one way to ask.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::exit::{Failure, Hinted};
use crate::http;
use crate::tls::files;

/// Where the control plane is and how to authenticate.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Connection {
    /// A replica's address; give it several times to try them in order.
    #[arg(
        long,
        global = true,
        env = "QUILTD_ADDRESS",
        value_delimiter = ',',
        default_value = "https://127.0.0.1:6443",
        value_name = "URL"
    )]
    pub(crate) address: Vec<String>,
    /// Certificate authority of the control plane, PEM.
    #[arg(long, global = true, env = "QUILTD_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// File that holds the admin key.
    #[arg(long, global = true, env = "QUILTD_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How long to wait for an answer, in seconds.
    #[arg(long, global = true, default_value_t = 15, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

impl Connection {
    /// One connection for each address.
    pub(crate) fn each(&self) -> impl Iterator<Item = Self> {
        self.address.iter().map(|address| Self { address: vec![address.clone()], ..self.clone() })
    }

    /// Sends one request to the first replica that answers and gives its JSON.
    pub(crate) fn ask(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.ask_any(method, path, body))
    }

    /// Writes the answer to a GET into a file, whole or not at all. Takes as long as bytes keep coming.
    pub(crate) fn download(&self, path: &str, to: &Path) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut answer = runtime.block_on(async {
            let answer = self.send(&Method::GET, path, None, Timeout::BetweenPieces).await?;
            if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
        })?;
        let pieces = std::iter::from_fn(|| match runtime.block_on(answer.chunk()) {
            Ok(piece) => piece.map(Ok),
            Err(error) => Some(Err(anyhow::Error::from(error).context("the answer broke off"))),
        });
        files::write_pieces(to, pieces)
    }

    async fn ask_any(&self, method: &Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = self.send(method, path, body, Timeout::Whole).await?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        let text = answer.text().await.context("the answer broke off")?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Sends one request to the first replica that answers.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        timeout: Timeout,
    ) -> anyhow::Result<reqwest::Response> {
        let ca = self.ca.as_ref().map(|path| files::read(path)).transpose()?;
        let seconds = Duration::from_secs(self.timeout);
        let client = match timeout {
            Timeout::Whole => http::client(ca.as_deref(), seconds)?,
            Timeout::BetweenPieces => http::download_client(ca.as_deref(), seconds)?,
        };
        let token = self.token_file.as_ref().map(|path| files::read(path)).transpose()?;
        let mut last = None;
        for address in &self.address {
            let mut request = client.request(method.clone(), format!("{}{path}", address.trim_end_matches('/')));
            if let Some(token) = &token {
                request = request.bearer_auth(token.trim());
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(http::unreachable(address, &error)),
            }
        }
        Err(last.context("no --address was given")?).hint("is `quiltd server` or `quiltd dev` running there?")
    }
}

/// What the timeout counts.
#[derive(Clone, Copy)]
enum Timeout {
    /// The whole answer.
    Whole,
    /// Silence.
    BetweenPieces,
}

/// The error an answer stands for.
async fn refusal(answer: reqwest::Response) -> anyhow::Error {
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let message = value["error"].as_str().or_else(|| value["message"].as_str()).unwrap_or(&text).to_owned();
    let failure = match status {
        StatusCode::NOT_FOUND => Failure::NotFound(message),
        StatusCode::UNAUTHORIZED => {
            return hinted(anyhow::anyhow!("{message}"), "give the admin key with --token-file FILE");
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Failure::Unavailable(message),
        _ => return anyhow::anyhow!("{message} (HTTP {status})"),
    };
    match value["hint"].as_str() {
        Some(hint) => hinted(failure, hint),
        None => failure.into(),
    }
}

fn hinted(error: impl Into<anyhow::Error>, hint: &str) -> anyhow::Error {
    match Err::<std::convert::Infallible, _>(error).hint(hint) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}
