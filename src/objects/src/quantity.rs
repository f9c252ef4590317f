//! [`Quantity`]: amounts of resources such as `500m`, `1.5Gi` or `12e6`, exact and without floating point.
//!
//! Held as a count of nano units in 128 bits; anything finer is rounded up, as Kubernetes does. Knows no resources.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// Nano units in one.
const NANO: i128 = 1_000_000_000;
/// Largest whole amount: that of a signed 64-bit integer; greater ones are capped to it.
const WHOLE_MAX: i128 = i64::MAX as i128;

/// The family of suffixes an amount was written with, kept when it is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `n u m k M G T P E`.
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`, `E6`.
    DecimalExponent,
}

/// Why a text is no quantity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

/// An amount. Equality and order are those of the amount, whatever the format.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Option<(Scale, Format)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(text, _)| *text == suffix) {
        return Some((Scale::Ten(*exponent), Format::DecimalSi));
    }
    if let Some((_, exponent)) = BINARY.iter().find(|(text, _)| *text == suffix) {
        return Some((Scale::Two(*exponent), Format::BinarySi));
    }
    let digits = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i32 = digits.strip_prefix('+').unwrap_or(digits).parse().ok()?;
    // Beyond these bounds every amount is either capped or rounds to one nano; the bound keeps the work small.
    Some((Scale::Ten(exponent.clamp(-64, 64)), Format::DecimalExponent))
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// A whole amount.
    #[must_use]
    pub fn whole(amount: i64, format: Format) -> Self {
        Self { nano: i128::from(amount) * NANO, format }
    }

    /// An amount in thousandths, as CPU is counted.
    #[must_use]
    pub fn milli(amount: i64) -> Self {
        Self { nano: i128::from(amount) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Reads the amount of a document, where it may be a text or a bare number.
    ///
    /// # Errors
    /// Any other value, and texts that are no quantity.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.trim().parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError),
        }
    }

    /// The amount in whole units, rounded up.
    #[must_use]
    pub fn value(self) -> i64 {
        capped(div_up(self.nano, NANO))
    }

    /// The amount in thousandths, rounded up.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        capped(div_up(self.nano, NANO / 1000))
    }

    /// Whether it is less than nothing.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Whether it is a whole number of units.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.nano % NANO == 0
    }

    /// The sum, capped; the format is that of the first amount unless that is zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: clamp(self.nano.saturating_add(other.nano)), format }
    }

    /// The difference, capped.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { nano: clamp(self.nano.saturating_sub(other.nano)), format: self.format }
    }
}

/// Rounds away from zero, as Kubernetes rounds what it cannot hold.
fn div_up(amount: i128, unit: i128) -> i128 {
    let whole = amount / unit;
    match (amount % unit).signum() {
        0 => whole,
        sign => whole + sign,
    }
}

fn clamp(nano: i128) -> i128 {
    nano.clamp(-WHOLE_MAX * NANO, WHOLE_MAX * NANO)
}

fn capped(amount: i128) -> i64 {
    i64::try_from(amount.clamp(-WHOLE_MAX, WHOLE_MAX)).unwrap_or(i64::MAX)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError);
        }
        let (scale, format) = scale(suffix).ok_or(QuantityError)?;
        let nano = magnitude(whole, fraction, &scale);
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }
}

/// `whole.fraction` times `scale` in nano units, rounded up and capped. All digits count, however many there are.
fn magnitude(whole: &str, fraction: &str, scale: &Scale) -> i128 {
    let limit = WHOLE_MAX * NANO;
    // A digit at decimal position p (p = 0 is the last of `whole`) is worth digit × 10^(p + 9 + exponent) nano.
    let (exponent, factor) = match scale {
        Scale::Ten(exponent) => (*exponent, 1),
        Scale::Two(bits) => (0, 1_i128 << bits),
    };
    let digits = whole.bytes().chain(fraction.bytes()).map(|byte| i128::from(byte - b'0'));
    // Position of the last digit kept exactly: finer ones (below 10^-30) only matter for rounding up.
    let mut mantissa: i128 = 0;
    let mut dropped = false;
    let mut power = 9 + exponent + i32::try_from(whole.len()).unwrap_or(i32::MAX / 2);
    for digit in digits {
        if mantissa >= 10_i128.pow(27) {
            dropped |= digit != 0;
            continue;
        }
        power = power.saturating_sub(1);
        mantissa = mantissa * 10 + digit;
    }
    if mantissa == 0 {
        return 0;
    }
    if power > 30 {
        return limit;
    }
    let scaled = |up: i128| 10_i128.pow(up.unsigned_abs().try_into().unwrap_or(0));
    if power >= 0 {
        let amount = mantissa.checked_mul(scaled(i128::from(power))).and_then(|amount| amount.checked_mul(factor));
        return amount.map_or(limit, |amount| (amount + i128::from(dropped)).min(limit));
    }
    if power < -38 {
        return 1;
    }
    let divisor = scaled(i128::from(power));
    // The whole part is multiplied at once; the rest is doubled bit by bit, which needs no wider integer and stays exact.
    let Some(mut amount) = mantissa.checked_div(divisor).and_then(|whole| whole.checked_mul(factor)) else {
        return limit;
    };
    let (mut rest, divisor) = ((mantissa % divisor).unsigned_abs(), divisor.unsigned_abs());
    let mut tail: i128 = 0;
    for _ in 0..factor.trailing_zeros() {
        rest *= 2;
        tail *= 2;
        if rest >= divisor {
            rest -= divisor;
            tail += 1;
        }
    }
    amount = amount.saturating_add(tail + i128::from(rest != 0 || dropped));
    amount.min(limit)
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest fitting suffix of its family. A binary amount that is small or no
    /// whole number is written in decimal, so that nothing is lost (`CanonicalizeBytes` of apimachinery's `quantity.go`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let small = self.nano.abs() < 1024 * NANO;
        match self.format {
            Format::BinarySi if !small && self.is_whole() => {
                let mut amount = self.nano / NANO;
                let mut suffix = "";
                for (text, _) in BINARY {
                    if amount % 1024 != 0 {
                        break;
                    }
                    amount /= 1024;
                    suffix = text;
                }
                write!(f, "{amount}{suffix}")
            }
            Format::BinarySi | Format::DecimalSi => {
                let (amount, exponent) = reduced(self.nano);
                let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(text, _)| text);
                write!(f, "{amount}{suffix}")
            }
            Format::DecimalExponent => {
                let (amount, exponent) = reduced(self.nano);
                if exponent == 0 { write!(f, "{amount}") } else { write!(f, "{amount}e{exponent}") }
            }
        }
    }
}

/// The amount with as many thousands as possible moved into the exponent.
fn reduced(nano: i128) -> (i128, i32) {
    let (mut amount, mut exponent) = (nano, -9);
    while exponent < 18 && amount % 1000 == 0 {
        amount /= 1000;
        exponent += 3;
    }
    (amount, exponent)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read, what it is written as, and its whole and milli values.
    #[test]
    fn canonical_forms() {
        let table = [
            ("0", "0", 0, 0),
            ("1000m", "1", 1, 1000),
            ("0.5", "500m", 1, 500),
            ("1.5", "1500m", 2, 1500),
            (".5", "500m", 1, 500),
            ("5.", "5", 5, 5000),
            ("100", "100", 100, 100_000),
            ("1000", "1k", 1000, 1_000_000),
            ("1k", "1k", 1000, 1_000_000),
            ("1024", "1024", 1024, 1_024_000),
            ("1024Ki", "1Mi", 1_048_576, 1_048_576_000),
            ("512Ki", "512Ki", 524_288, 524_288_000),
            ("1.5Gi", "1536Mi", 1_610_612_736, 1_610_612_736_000),
            ("0.5Ki", "512", 512, 512_000),
            ("1.1Ki", "1126400m", 1127, 1_126_400),
            ("1.953125Ki", "2000", 2000, 2_000_000),
            ("426.6548150Mi", "447379999293440u", 447_380_000, 447_379_999_294),
            ("1e3", "1e3", 1000, 1_000_000),
            ("12E6", "12e6", 12_000_000, 12_000_000_000),
            ("1E", "1E", 1_000_000_000_000_000_000, i64::MAX),
            ("1n", "1n", 1, 1),
            ("0.1n", "1n", 1, 1),
            ("-1.5", "-1500m", -2, -1500),
            ("+3", "3", 3, 3000),
            ("100e-3", "100e-3", 1, 100),
            ("99999999999999999999", "9223372036854775807", i64::MAX, i64::MAX),
            ("8Ei", "9223372036854775807", i64::MAX, i64::MAX),
            ("1e99", "9223372036854775807", i64::MAX, i64::MAX),
        ];
        for (text, canonical, value, milli) in table {
            let quantity: Quantity = text.parse().unwrap_or_else(|_| panic!("{text} is a quantity"));
            assert_eq!(quantity.to_string(), canonical, "{text}");
            assert_eq!(quantity.value(), value, "{text}");
            assert_eq!(quantity.milli_value(), milli, "{text}");
        }
        for bad in ["", "a", "1.2.3", "1 Gi", "Gi", "1gi", "1KI", "--1", "1e", "1e1.5", ".", "-", "1mm", "０"] {
            assert_eq!(bad.parse::<Quantity>(), Err(QuantityError), "{bad:?}");
        }
    }

    /// Amounts compare and add across formats.
    #[test]
    fn arithmetic() {
        let quantity = |text: &str| text.parse::<Quantity>().expect("valid");
        assert!(quantity("1Gi") > quantity("1G"));
        assert_eq!(quantity("1000m"), quantity("1"));
        assert_eq!(quantity("100m").plus(quantity("0.9")).to_string(), "1");
        assert_eq!(Quantity::ZERO.plus(quantity("1Gi")).to_string(), "1Gi");
        assert_eq!(quantity("1Gi").minus(quantity("1Mi")).to_string(), "1023Mi");
        assert!(quantity("-1").is_negative() && !quantity("1500m").is_whole());
        assert_eq!(Quantity::from_value(&serde_json::json!(0.5)).expect("number").to_string(), "500m");
        assert!(Quantity::from_value(&serde_json::json!(true)).is_err());
    }

    proptest! {
        /// The canonical form reads back as the same amount and is a fixed point, but for a binary amount that fits no binary
        /// suffix: its bare digits are read as decimal. No text panics.
        #[test]
        fn canonical_form_is_a_fixed_point(text in "[+-]?[0-9]{1,25}(\\.[0-9]{0,25})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,2})") {
            let quantity: Quantity = text.parse().expect("matches the grammar");
            let again: Quantity = quantity.to_string().parse().expect("canonical");
            prop_assert_eq!(again, quantity);
            if again.format == quantity.format {
                prop_assert_eq!(again.to_string(), quantity.to_string());
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9eEinumkKMGTP.+-]{0,40}") {
            let _ = text.parse::<Quantity>().map(|quantity| quantity.to_string());
        }
    }
}
