//! Counts that may be written as a percentage: how many pods `25%` of a Deployment are.

use serde_json::Value;

/// Which way a fraction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the next higher whole: surge.
    Up,
    /// To the next lower whole: unavailability.
    Down,
}

/// Why a value is neither a count nor a percentage.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%')")]
pub struct NotAPercentage;

/// The percentage that `text` says.
///
/// # Errors
/// Anything but digits and a percent sign.
pub fn percentage(text: &str) -> Result<i64, NotAPercentage> {
    let digits = text.strip_suffix('%').ok_or(NotAPercentage)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotAPercentage);
    }
    digits.parse().map_err(|_| NotAPercentage)
}

/// The count that `value` means of `total`.
///
/// # Errors
/// A text that is no percentage, or a value that is neither integer nor text.
pub fn resolve(value: &Value, total: i64, rounding: Rounding) -> Result<i64, NotAPercentage> {
    match value {
        Value::Number(number) => number.as_i64().ok_or(NotAPercentage),
        Value::String(text) => {
            let share = i128::from(percentage(text)?) * i128::from(total);
            let whole = match rounding {
                Rounding::Up => (share + 99).div_euclid(100),
                Rounding::Down => share.div_euclid(100),
            };
            i64::try_from(whole).map_err(|_| NotAPercentage)
        }
        _ => Err(NotAPercentage),
    }
}

/// Bounds of a rolling update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollingBounds {
    /// Pods above the wanted number.
    pub max_surge: i64,
    /// Pods of the wanted number that may be missing.
    pub max_unavailable: i64,
}

/// The bounds for `desired` pods; both zero would stand still, so one pod may then be missing.
///
/// # Errors
/// A text that is no percentage.
pub fn rolling_bounds(
    max_surge: Option<&Value>,
    max_unavailable: Option<&Value>,
    desired: i64,
) -> Result<RollingBounds, NotAPercentage> {
    let max_surge = max_surge.map_or(Ok(0), |value| resolve(value, desired, Rounding::Up))?;
    let mut max_unavailable = max_unavailable.map_or(Ok(0), |value| resolve(value, desired, Rounding::Down))?;
    if max_surge == 0 && max_unavailable == 0 {
        max_unavailable = 1;
    }
    Ok(RollingBounds { max_surge, max_unavailable: max_unavailable.min(desired.max(0)) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Surge rounds up, unavailability down, and a rollout never stands still.
    #[test]
    fn bounds() {
        let table = [
            (json!("25%"), json!("25%"), 5, 2, 1),
            (json!("25%"), json!("25%"), 1, 1, 0),
            (json!("25%"), json!("25%"), 4, 1, 1),
            (json!(0), json!("10%"), 5, 0, 1),
            (json!(3), json!(9), 5, 3, 5),
            (json!("100%"), json!(0), 7, 7, 0),
            (json!(0), json!(0), 0, 0, 0),
        ];
        for (surge, unavailable, desired, max_surge, max_unavailable) in table {
            let bounds = rolling_bounds(Some(&surge), Some(&unavailable), desired).expect("valid");
            assert_eq!(bounds, RollingBounds { max_surge, max_unavailable }, "{surge} {unavailable} of {desired}");
        }
        for bad in [json!("25"), json!("%"), json!("-1%"), json!("a%"), json!(1.5), json!(null)] {
            assert_eq!(resolve(&bad, 10, Rounding::Up), Err(NotAPercentage), "{bad}");
        }
    }
}
