//! How a command reaches a replica: the flags every client command shares, and one way to ask.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::exit::{Failure, hinted};
use crate::http;
use crate::tls::files;

/// Port of the API when nothing else is said, as with `quiltd server`.
pub(crate) const API_PORT: u16 = 6443;

/// Where the control plane is and how to authenticate.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection options")]
pub(crate) struct Connection {
    /// A replica's address; several, by commas or by repeating the flag, are tried in order.
    #[arg(
        long,
        global = true,
        env = "QUILTD_ADDRESS",
        value_delimiter = ',',
        value_parser = address,
        default_value = "https://127.0.0.1:6443",
        value_name = "URL"
    )]
    pub(crate) address: Vec<String>,
    /// Certificate authority of the control plane, PEM.
    #[arg(long, global = true, env = "QUILTD_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// File that holds the key: the admin key, or a tenant's for its clusters.
    #[arg(long, global = true, env = "QUILTD_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How long to wait for an answer, such as 5s, 500ms or 2m.
    #[arg(long, global = true, default_value = "15s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

impl Connection {
    /// The same for requests that may take `long` by themselves.
    pub(crate) fn patient(&self, long: Duration) -> Self {
        Self { timeout: self.timeout.saturating_add(long), ..self.clone() }
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
        let ca = self.ca.as_ref().map(|path| files::read(path)).transpose().context("--ca")?;
        let client = match timeout {
            Timeout::Whole => http::client(ca.as_deref(), self.timeout),
            Timeout::BetweenPieces => http::download_client(ca.as_deref(), self.timeout),
        };
        let client = match &self.ca {
            Some(file) => client.with_context(|| format!("--ca '{}'", file.display()))?,
            None => client?,
        };
        let token = self.token_file.as_ref().map(|path| files::read(path)).transpose().context("--token-file")?;
        let mut last = None;
        for address in &self.address {
            let mut request = client.request(method.clone(), format!("{address}{path}"));
            if let Some(token) = &token {
                request = request.bearer_auth(token.trim());
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(answer) => return Ok(answer),
                // What may have been done already is not asked for a second time elsewhere.
                Err(error) if *method != Method::GET && !error.is_connect() => {
                    return Err(http::unreachable(address, ca.as_deref(), &error));
                }
                Err(error) => last = Some(http::unreachable(address, ca.as_deref(), &error)),
            }
        }
        Err(last.context("no --address was given")?)
    }
}

/// An address as people write it: without a scheme it is `https`, and then without a port the API's own.
fn address(text: &str) -> Result<String, String> {
    let expected = || "expected URL, such as https://10.0.0.1:6443".to_owned();
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url: reqwest::Url = whole.parse().map_err(|_| expected())?;
    let more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
    let account = !url.username().is_empty() || url.password().is_some();
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() || more || account {
        return Err(expected());
    }
    if !text.contains("://") && url.port().is_none() {
        url.set_port(Some(API_PORT)).map_err(|()| expected())?;
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The same for who joins: the answer decides whom this host belongs to from then on, so it comes by TLS.
pub(crate) fn tls_address(text: &str) -> Result<String, String> {
    let found = address(text).ok().filter(|address| address.starts_with("https://"));
    found.ok_or_else(|| "expected https URL of a replica, such as https://10.0.0.1:6443".to_owned())
}

/// A time with its unit; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time, such as 5s, 500ms or 2m".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| expected())?;
    let time = match unit {
        "ms" => Duration::from_millis(number),
        "s" | "" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(3600)),
        _ => return Err(expected()),
    };
    if time.is_zero() { Err("expected a time above zero".into()) } else { Ok(time) }
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
pub(crate) async fn refusal(answer: reqwest::Response) -> anyhow::Error {
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let message = value["error"].as_str().or_else(|| value["message"].as_str()).unwrap_or(&text).to_owned();
    let error: anyhow::Error = match status {
        StatusCode::NOT_FOUND => Failure::NotFound(message).into(),
        StatusCode::UNAUTHORIZED => {
            // The API's own hint speaks of headers.
            let hint = "give the right key's file with --token-file: the admin key, or for clusters their tenant's";
            return hinted(anyhow::anyhow!("{message}"), hint);
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Failure::Unavailable(message).into(),
        StatusCode::GATEWAY_TIMEOUT => Failure::TimedOut(message).into(),
        // What is in the way, such as a name that is taken, is no danger: that is a plain failure.
        StatusCode::CONFLICT if matches!(value["error_code"].as_str(), Some("UNSAFE_MEMBERSHIP" | "CONFLICT")) => {
            Failure::Refused(message).into()
        }
        // Said in words already.
        StatusCode::CONFLICT | StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => anyhow::anyhow!(message),
        _ => anyhow::anyhow!("{message} (HTTP {status})"),
    };
    match value["hint"].as_str() {
        Some(hint) => hinted(error, hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses are taken as etcdctl and kubectl users write them; what cannot be one is refused before it is tried.
    #[test]
    fn addresses_are_parsed() {
        for (text, meant) in [
            ("https://cp-1:6443", "https://cp-1:6443"),
            ("https://cp-1:6443/", "https://cp-1:6443"),
            ("cp-1:7000", "https://cp-1:7000"),
            ("cp-1", "https://cp-1:6443"),
            ("[fd00::1]:6443", "https://[fd00::1]:6443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ] {
            assert_eq!(address(text), Ok(meant.to_owned()), "{text}");
        }
        for wrong in [
            "",
            "ftp://cp-1",
            "https://cp-1:6443/api",
            "https://",
            "cp-1:port",
            "cp 1",
            "https://me:word@cp-1",
            "cp-1#x",
        ] {
            assert!(address(wrong).is_err() && tls_address(wrong).is_err(), "{wrong}");
        }
        assert_eq!(tls_address("cp-1"), Ok("https://cp-1:6443".to_owned()));
        assert!(tls_address("http://127.0.0.1:8080").is_err());
    }

    /// Times have units; a number alone is seconds, as it was before there were any.
    #[test]
    fn times_are_parsed() {
        for (text, meant) in [("5s", 5_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("7", 7_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(meant)), "{text}");
        }
        for wrong in ["", "s", "5d", "-1s", "1.5s", "0s", "5 s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
