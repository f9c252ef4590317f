//! GET of a collection: pages of one snapshot, streamed from stored bytes without a list ever being in memory.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use quilt_objects::status::Status;
use quilt_proto::{Key, KeyPrefix, Record};
use quilt_raft::{Limit, ReadError, View};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::negotiate::{Encoding, Shapes, accept};
use crate::problem::Problem;
use crate::query::{ListOptions, ReadAt};
use crate::render::{Renderer, include, respond};
use crate::request::Call;
use crate::selection::Selection;

/// Records and bytes read in one synchronous step.
pub(crate) const PAGE: Limit = Limit { records: 500, bytes: 1 << 20 };

/// Bytes read to count what remains; above it the count is left out, which clients must expect.
const COUNT_BYTES_MAX: usize = 16 << 20;

/// A list as YAML exists in memory at once; JSON is the form for large ones.
const YAML_BYTES_MAX: usize = 32 << 20;

/// Where a later page goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    /// Form of the token.
    v: u32,
    /// Snapshot of the first page; 0 = the present one, after the snapshot was gone.
    rv: u64,
    /// Namespace and name of the last object given out.
    start: (String, String),
}

impl Token {
    const VERSION: u32 = 1;

    fn encode(&self) -> String {
        let text = serde_json::to_string(self).expect("numbers and texts always serialize");
        URL_SAFE_NO_PAD.encode(text)
    }

    fn decode(text: &str) -> Result<Self, Problem> {
        let bad = || Problem::bad_request("continue key is not valid: it was not given by this control plane");
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad())?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if token.v == Self::VERSION { Ok(token) } else { Err(bad()) }
    }
}

/// One page under way.
struct Pages {
    view: View,
    prefix: KeyPrefix,
    selection: Selection,
    renderer: Renderer,
    after: Option<Key>,
    /// Objects still wanted; `None` = all.
    left: Option<u64>,
    /// Whether an item was written already.
    begun: bool,
    state: Reading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// There may be more.
    On,
    /// The collection has ended.
    End,
    /// The limit was reached; whether more remains is known by what was read.
    Full,
}

/// Answers with the objects of the collection that the selectors choose.
pub(crate) async fn list(call: &Call) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::All)?;
    let include_object = include(call.query.get("includeObject"))?;
    let options = ListOptions::for_list(&call.query)?;
    let selection = Selection::parse(call.kind, &options)?;
    let prefix = selection.prefix(call)?;
    let (view, after) = start(call, &options).await?;
    let renderer =
        Renderer::new(call.kind, form, include_object, &call.api.options.root_key, call.api.replica.wall_ms());
    let left = (options.limit > 0).then_some(options.limit);
    let mut pages = Pages { view, prefix, selection, renderer, after, left, begun: false, state: Reading::On };
    // The first step is taken before the answer begins, so that its errors have a status of their own.
    let first = pages.step()?;
    let body = body(pages, first);
    if form.encoding == Encoding::Yaml {
        let json = collect(body).await?;
        return respond(StatusCode::OK, form.encoding, json);
    }
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.encoding.media_type()));
    Ok(response)
}

/// The snapshot to read and the key to go on after.
async fn start(call: &Call, options: &ListOptions) -> Result<(View, Option<Key>), Problem> {
    let Some(text) = &options.continue_token else {
        return Ok((call.view(options.read_at).await?, None));
    };
    let token = Token::decode(text)?;
    let (namespace, name) = &token.start;
    if !call.namespace.is_empty() && *namespace != call.namespace {
        return Err(Problem::bad_request("continue key is not valid: it is of another collection"));
    }
    let after = call.key_of(call.kind, namespace, name)?;
    if token.rv == 0 {
        return Ok((call.view(ReadAt::Latest).await?, Some(after)));
    }
    let newest = call.view(ReadAt::NotOlderThan(token.rv)).await?;
    Ok((newest.at(token.rv.into())?, Some(after)))
}

/// The token that goes on behind `after`.
fn go_on(after: &Key, rv: u64) -> Token {
    let parts = after.parts();
    Token { v: Token::VERSION, rv, start: (parts.namespace.to_owned(), parts.name.to_owned()) }
}

impl Pages {
    /// Reads one bounded step and renders what it found.
    fn step(&mut self) -> Result<Bytes, Problem> {
        let mut out = BytesMut::new();
        let page = self.view.scan(&self.prefix, self.after.as_ref(), PAGE).map_err(|error| self.unreadable(error))?;
        let last = page.records.len();
        for (at, (key, record)) in page.records.iter().enumerate() {
            if self.left == Some(0) {
                self.state = Reading::Full;
                return Ok(out.freeze());
            }
            if self.selection.matches(key, record)? {
                self.write(record, &mut out)?;
                self.left = self.left.map(|left| left - 1);
            }
            self.after = Some(key.clone());
            if self.left == Some(0) && at + 1 == last && page.more {
                self.state = Reading::Full;
                return Ok(out.freeze());
            }
        }
        if !page.more {
            self.state = Reading::End;
        }
        Ok(out.freeze())
    }

    /// A snapshot that history no longer has: a list under way is told how it can go on at the present state.
    fn unreadable(&self, error: ReadError) -> Problem {
        match (error, &self.after) {
            (ReadError::Compacted { .. }, Some(after)) => Status::list_expired(go_on(after, 0).encode()).into(),
            (ReadError::Compacted { .. }, None) => {
                Problem::expired("The resourceVersion for the provided list is too old.")
            }
            (error, _) => error.into(),
        }
    }

    fn write(&mut self, record: &Record, out: &mut BytesMut) -> Result<(), Problem> {
        if self.begun {
            out.extend_from_slice(b",");
        }
        self.begun = true;
        self.renderer.item(record, out)
    }

    /// List metadata; where it goes on is known once the page is full.
    fn metadata(&self) -> Result<Value, Problem> {
        let revision = self.view.revision().get();
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let (Reading::Full, Some(after), Some(map)) = (self.state, &self.after, metadata.as_object_mut()) {
            map.insert("continue".into(), go_on(after, revision).encode().into());
            if self.selection.is_everything()
                && let Some(count) = self.count_remaining()?
            {
                map.insert("remainingItemCount".into(), count.into());
            }
        }
        Ok(metadata)
    }

    fn count_remaining(&self) -> Result<Option<usize>, Problem> {
        let (mut count, mut bytes) = (0, 0);
        let mut after = self.after.clone();
        loop {
            let page = self.view.scan(&self.prefix, after.as_ref(), PAGE)?;
            count += page.records.len();
            bytes += page.records.iter().map(|(_, record)| record.value.len()).sum::<usize>();
            match page.records.last() {
                Some(_) if page.more && bytes > COUNT_BYTES_MAX => return Ok(None),
                Some((key, _)) if page.more => after = Some(key.clone()),
                _ => return Ok(Some(count)),
            }
        }
    }
}

/// The parts of the answer still to come.
enum Next {
    Head(Box<Pages>, Bytes),
    Items(Box<Pages>),
    Done,
}

/// Head, items, tail. List metadata stands first when it is known then, else last: JSON does not care.
fn body(pages: Pages, first: Bytes) -> impl futures::Stream<Item = Result<Bytes, Problem>> + Send + 'static {
    futures::stream::unfold(Next::Head(Box::new(pages), first), |next| async move {
        let step = match next {
            Next::Head(pages, first) => head(pages, &first),
            Next::Items(pages) => items(pages),
            Next::Done => return None,
        };
        Some(match step {
            Ok((chunk, next)) => (Ok(chunk), next),
            Err(problem) => (Err(problem), Next::Done),
        })
    })
    .filter(|chunk| std::future::ready(!matches!(chunk, Ok(bytes) if bytes.is_empty())))
}

fn head(pages: Box<Pages>, first: &Bytes) -> Result<(Bytes, Next), Problem> {
    let metadata = if pages.left.is_none() { Some(pages.metadata()?) } else { None };
    let mut chunk = BytesMut::from(pages.renderer.list_head(metadata.as_ref()).as_bytes());
    chunk.extend_from_slice(first);
    finish(pages, chunk)
}

fn items(mut pages: Box<Pages>) -> Result<(Bytes, Next), Problem> {
    let chunk = BytesMut::from(pages.step()?);
    finish(pages, chunk)
}

fn finish(pages: Box<Pages>, mut chunk: BytesMut) -> Result<(Bytes, Next), Problem> {
    if pages.state == Reading::On {
        return Ok((chunk.freeze(), Next::Items(pages)));
    }
    let metadata = if pages.left.is_some() { Some(pages.metadata()?) } else { None };
    chunk.extend_from_slice(Renderer::list_tail(metadata.as_ref()).as_bytes());
    Ok((chunk.freeze(), Next::Done))
}

async fn collect(body: impl futures::Stream<Item = Result<Bytes, Problem>> + Send) -> Result<Bytes, Problem> {
    let json = body
        .try_fold(BytesMut::new(), |mut all, chunk| async move {
            if all.len() + chunk.len() > YAML_BYTES_MAX {
                return Err(Problem::too_large("a list as YAML", YAML_BYTES_MAX));
            }
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await?;
    Ok(json.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens come back as they went out; foreign ones are refused.
    #[test]
    fn tokens() {
        let token = Token { v: 1, rv: 42, start: ("ns".into(), "name".into()) };
        assert_eq!(Token::decode(&token.encode()).expect("a token"), token);
        for bad in [
            "",
            "xyz",
            "!!!",
            &URL_SAFE_NO_PAD.encode("{}"),
            &URL_SAFE_NO_PAD.encode(r#"{"v":9,"rv":1,"start":["",""]}"#),
        ] {
            assert_eq!(Token::decode(bad).expect_err("refused").code(), 400, "{bad}");
        }
    }
}
