//! Exit codes and the form of a final error (operator experience, sections 2 and 6).

use std::process::ExitCode;

use crate::output;

/// Why a command ends with a code other than 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Wrong use of the command line. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// What was named does not exist. Exit code 3.
    #[error("{0}")]
    NotFound(String),
    /// No replica answers, or none leads. Exit code 4.
    #[error("{0}")]
    Unavailable(String),
    /// Doing it would be unsafe. Exit code 5.
    #[error("{0}")]
    Refused(String),
    /// It did not happen in time. Exit code 6.
    #[error("{0}")]
    TimedOut(String),
}

impl Failure {
    const fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Unavailable(_) => 4,
            Self::Refused(_) => 5,
            Self::TimedOut(_) => 6,
        }
    }
}

/// What one can do about it, attached to an error by [`Hinted::hint`].
#[derive(Debug)]
struct Hint {
    text: String,
    error: anyhow::Error,
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nhint: {}", told(&self.error), self.text)
    }
}

/// An error with its causes, none of them twice: many errors quote their cause in their own words.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// The failure with a hint, as an error.
pub(crate) fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    match Err::<std::convert::Infallible, _>(error).hint(hint) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Attaches a hint: something one can type or change.
pub(crate) trait Hinted<T> {
    /// The same result, with `text` as the hint of its error.
    fn hint(self, text: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Hinted<T> for Result<T, E> {
    fn hint(self, text: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| {
            let hint = Hint { text: text.into(), error: error.into() };
            let shown = hint.to_string();
            // Downcasting to Failure must still find the original.
            hint.error.context(Shown(shown))
        })
    }
}

/// A complete rendering; what lies below it is not printed again.
#[derive(Debug)]
struct Shown(String);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints the error on stderr and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let text = match error.downcast_ref::<Shown>() {
        Some(shown) => shown.to_string(),
        None => told(error),
    };
    output::note(&format!("error: {text}"));
    let code = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(1, Failure::code);
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cause that its error quotes is told once.
    #[test]
    fn causes_are_told_once() {
        let cause = anyhow::anyhow!("no such file");
        assert_eq!(
            told(&cause.context("/x: no such file").context("the backup cannot be read")),
            "the backup cannot be read: /x: no such file"
        );
    }

    /// A hint changes what is printed, not the exit code.
    #[test]
    fn hint_keeps_the_code() {
        let error = Err::<(), _>(Failure::Unavailable("no replica answers".into())).hint("start one").expect_err("is");
        let code = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map(Failure::code);
        assert_eq!(code, Some(4));
        assert_eq!(error.downcast_ref::<Shown>().expect("shown").0, "no replica answers\nhint: start one");
    }
}
