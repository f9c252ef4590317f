//! What a client asks of a container's output: the path and query of a kubelet's `containerLogs`. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::clock;

/// A request for output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogRequest {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    /// The run before the present one.
    pub(crate) previous: bool,
    pub(crate) read: Read,
}

/// How a file of output is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Read {
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) limit_bytes: Option<u64>,
    /// In the form of the file's stamps, so that texts can be compared.
    pub(crate) since: Option<String>,
    /// Only `stdout` or only `stderr`.
    pub(crate) stream: Option<String>,
}

/// Reads `/containerLogs/{namespace}/{pod}/{container}?…`. `None` is another path; an error is text for a 400.
pub(crate) fn parse(path: &str, query: &str, now: Timestamp) -> Option<Result<LogRequest, String>> {
    let mut parts = path.strip_prefix("/containerLogs/")?.split('/');
    let (namespace, pod, container) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let mut request = LogRequest {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
        ..LogRequest::default()
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let Err(wrong) = take(&mut request, name, &decoded(value), now) {
            return Some(Err(format!("invalid value \"{value}\" of {name}: {wrong}")));
        }
    }
    Some(Ok(request))
}

fn take(request: &mut LogRequest, name: &str, value: &str, now: Timestamp) -> Result<(), &'static str> {
    let read = &mut request.read;
    match name {
        "follow" => read.follow = boolean(value)?,
        "previous" => request.previous = boolean(value)?,
        "timestamps" => read.timestamps = boolean(value)?,
        "tailLines" => read.tail_lines = Some(number(value, "a number of lines, 0 or more")?),
        "limitBytes" => {
            read.limit_bytes = match number(value, "a number of bytes, 1 or more")? {
                0 => return Err("a number of bytes, 1 or more"),
                bytes => Some(bytes),
            }
        }
        "sinceSeconds" => {
            let expected = "a number of seconds, 1 or more";
            let seconds = i64::try_from(number(value, expected)?).map_err(|_large| expected)?;
            let since = now.checked_sub(SignedDuration::from_secs(seconds)).map_err(|_large| expected)?;
            read.since = Some(clock::to_nanoseconds(since));
        }
        "sinceTime" => {
            let since: Timestamp = value.parse().map_err(|_no_time| "an RFC 3339 time")?;
            read.since = Some(clock::to_nanoseconds(since));
        }
        "stream" => {
            read.stream = match value {
                "" | "All" => None,
                "Stdout" => Some("stdout".to_owned()),
                "Stderr" => Some("stderr".to_owned()),
                _ => return Err("All, Stdout or Stderr"),
            }
        }
        // Clients of later versions may ask for more; what this agent does not know changes nothing.
        _ => {}
    }
    Ok(())
}

fn boolean(value: &str) -> Result<bool, &'static str> {
    match value {
        "true" | "True" | "TRUE" | "1" | "t" | "T" | "" => Ok(true),
        "false" | "False" | "FALSE" | "0" | "f" | "F" => Ok(false),
        _ => Err("true or false"),
    }
}

fn number(value: &str, expected: &'static str) -> Result<u64, &'static str> {
    value.parse().map_err(|_no_number| expected)
}

/// Percent-decoding, as far as these values need it.
fn decoded(value: &str) -> String {
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| value.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = escaped {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::parse;

    fn now() -> Timestamp {
        Timestamp::from_second(1_767_866_400).expect("in range")
    }

    /// Every option of a kubelet's path arrives; times become text comparable with the stamps.
    #[test]
    fn options_arrive() {
        let request = parse(
            "/containerLogs/default/web/main",
            "follow=true&tailLines=5&limitBytes=10&sinceSeconds=60&timestamps=true&previous=false&stream=Stderr",
            now(),
        )
        .expect("its path")
        .expect("good");
        assert_eq!((request.pod.as_str(), request.container.as_str()), ("web", "main"));
        assert!(request.read.follow && request.read.timestamps && !request.previous);
        assert_eq!(request.read.tail_lines, Some(5));
        assert_eq!(request.read.since.as_deref(), Some("2026-01-08T09:59:00.000000000Z"));
        assert_eq!(request.read.stream.as_deref(), Some("stderr"));
        let request = parse("/containerLogs/a/b/c", "sinceTime=2026-01-08T10%3A00%3A00%2B01%3A00", now());
        let since = request.expect("its path").expect("good").read.since;
        assert_eq!(since.as_deref(), Some("2026-01-08T09:00:00.000000000Z"));
    }

    /// A wrong value is named; another path is not this one's business.
    #[test]
    fn wrong_values_are_named() {
        for query in ["tailLines=-1", "limitBytes=0", "follow=maybe", "sinceTime=yesterday"] {
            let error = parse("/containerLogs/a/b/c", query, now()).expect("its path").expect_err(query);
            assert!(error.contains(query.split('=').next().expect("a name")), "{error}");
        }
        assert!(parse("/healthz", "", now()).is_none());
        assert!(parse("/containerLogs/a/b", "", now()).is_none());
    }
}
