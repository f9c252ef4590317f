//! The one form of each special value: times, quantities, durations, base64. Both decoders end here, so both give equal texts.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use serde_json::Value;

use crate::quantity::Quantity;

/// Go's standard encoding: padding needed, stray trailing bits tolerated.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// How many fractional digits a time keeps.
#[derive(Clone, Copy)]
pub(super) enum Precision {
    Seconds,
    Micros,
}

/// RFC 3339 text to its canonical form in UTC.
pub(super) fn time(text: &str, precision: Precision) -> Result<String, String> {
    let fail = || format!("{text:?} is not an RFC 3339 time");
    // The parser knows other notations too; the date-time form with `T` is the only one here.
    let is_date_time = text.len() >= 20 && text.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't'));
    if !is_date_time {
        return Err(fail());
    }
    let time: Timestamp = text.parse().map_err(|_| fail())?;
    Ok(render(time, precision))
}

/// Seconds and nanoseconds since 1970 to the canonical form.
pub(super) fn time_of(seconds: i64, nanos: i64, precision: Precision) -> Result<String, String> {
    let fail = || format!("{seconds} seconds and {nanos} nanoseconds are no valid time");
    let nanos = i32::try_from(nanos).map_err(|_| fail())?;
    let nanos = match precision {
        Precision::Seconds => 0,
        Precision::Micros => nanos,
    };
    let time = Timestamp::new(seconds, nanos).map_err(|_| fail())?;
    Ok(render(time, precision))
}

fn render(time: Timestamp, precision: Precision) -> String {
    match precision {
        Precision::Seconds => format!("{time:.0}"),
        Precision::Micros => format!("{time:.6}"),
    }
}

/// Quantity as text or number to its canonical text.
pub(super) fn quantity(value: &Value) -> Result<String, String> {
    Quantity::from_value(value).map(|quantity| quantity.to_string()).map_err(|error| error.to_string())
}

/// Base64 text to the form that encoding again gives; line breaks are ignored as in Go.
pub(super) fn bytes(text: &str) -> Result<String, String> {
    let compact: String;
    let text = if text.contains(['\r', '\n']) {
        compact = text.replace(['\r', '\n'], "");
        &compact
    } else {
        text
    };
    BASE64.decode(text).map(|raw| base64(&raw)).map_err(|error| format!("not valid base64: {error}"))
}

/// A number without a needless `.0`, as Go writes it; null when it is none.
pub(super) fn number(float: f64) -> Value {
    format!("{float}").parse::<i64>().map_or_else(|_| Value::from(float), Value::from)
}

/// Bytes as base64 text.
pub(super) fn base64(raw: &[u8]) -> String {
    BASE64.encode(raw)
}

const SECOND: i64 = 1_000_000_000;
const UNITS: &[(&str, i64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// Go duration text (`1h2m3.5s`) to its canonical form.
pub(super) fn duration(text: &str) -> Result<String, String> {
    duration_nanos(text).map(duration_of).ok_or_else(|| format!("{text:?} is not a duration"))
}

fn duration_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*scale)?)?;
        let mut place = *scale;
        for digit in fraction.bytes() {
            place /= 10;
            total = total.checked_add(i64::from(digit.checked_sub(b'0')?).checked_mul(place)?)?;
        }
        rest = tail;
    }
    Some(if negative { total.checked_neg()? } else { total })
}

/// Nanoseconds as Go writes a duration.
pub(super) fn duration_of(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let second = SECOND.unsigned_abs();
    if nanos < second {
        let (unit, scale) = match nanos {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", decimal(nanos, scale));
    }
    let (minutes, rest) = (nanos / (60 * second), nanos % (60 * second));
    let seconds = decimal(rest, second);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `amount / scale` without trailing zeros; `scale` is a power of ten.
fn decimal(amount: u64, scale: u64) -> String {
    let (whole, rest) = (amount / scale, amount % scale);
    if rest == 0 {
        return whole.to_string();
    }
    let width = scale.to_string().len() - 1;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}
