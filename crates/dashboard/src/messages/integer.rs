//! Whole numbers as pydantic v2 reads them where it is not strict.

use serde_json::Value;

/// The longest text that is looked at, as Python does.
const LONGEST: usize = 4300;

/// Why a value is no whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is of no kind that could be one.
    Type,
    /// It has a fractional part.
    Fraction,
    /// Its text is none.
    Text,
    /// It is too large to be looked at.
    Size,
}

// === impl Refusal ===

impl Refusal {
    /// What is wrong, for a program.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Type => "int_type",
            Self::Fraction => "int_from_float",
            Self::Text => "int_parsing",
            Self::Size => "int_parsing_size",
        }
    }

    /// What is wrong, for a person.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Type => "Input should be a valid integer",
            Self::Fraction => "Input should be a valid integer, got a number with a fractional part",
            Self::Text => "Input should be a valid integer, unable to parse string as an integer",
            Self::Size => "Unable to parse input string as an integer, exceeded maximum size",
        }
    }
}

/// Reads a whole number: a number without a fractional part, a text of one, or a truth value. Beyond 64 bits it is the greatest or the
/// least of them.
pub(super) fn read(value: &Value) -> Result<i64, Refusal> {
    match value {
        Value::Bool(truth) => Ok(i64::from(*truth)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Ok(number),
            (None, _) if number.is_u64() => Ok(i64::MAX),
            (None, Some(number)) if number.fract() != 0.0 => Err(Refusal::Fraction),
            (None, Some(number)) if number.abs() < i64::MAX as f64 => Ok(number as i64),
            (None, _) => Err(Refusal::Size),
        },
        Value::String(text) => read_text(text),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(Refusal::Type),
    }
}

/// A sign, digits with single underscores between them, and a decimal point with zeros only: all but the digits may be missing.
fn read_text(text: &str) -> Result<i64, Refusal> {
    if text.len() > LONGEST {
        return Err(Refusal::Size);
    }
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, zeros) = digits.split_once('.').unwrap_or((digits, "0"));
    let groups_are_digits =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if !groups_are_digits || zeros.is_empty() || zeros.bytes().any(|byte| byte != b'0') {
        return Err(Refusal::Text);
    }
    // Nothing but digits is left, so that only their number can be the matter.
    let number = digits.replace('_', "").parse().unwrap_or(i64::MAX);
    Ok(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What pydantic 2.14 says, value by value.
    #[test]
    fn every_value_is_what_pydantic_makes_of_it() {
        for (json, number) in [
            ("true", 1),
            ("false", 0),
            ("1", 1),
            ("-1", -1),
            ("1.0", 1),
            ("-0.0", 0),
            ("1e2", 100),
            (r#""1""#, 1),
            (r#"" 7 ""#, 7),
            (r#""\n7\t""#, 7),
            (r#""\u00a07""#, 7),
            (r#""+7""#, 7),
            (r#""-7""#, -7),
            (r#""-0""#, 0),
            (r#""1.0""#, 1),
            (r#""1.00""#, 1),
            (r#""1.0 ""#, 1),
            (r#""+007.0""#, 7),
            (r#""-1.0""#, -1),
            (r#""1_000""#, 1000),
            (r#""0_7""#, 7),
            (r#""1_0.0""#, 10),
            (r#""+1_0""#, 10),
            (r#""00000000000000000000000001""#, 1),
            ("9223372036854775808", i64::MAX),
            (r#""99999999999999999999""#, i64::MAX),
            (r#""-99999999999999999999""#, -i64::MAX),
        ] {
            assert_eq!(read(&serde_json::from_str(json).unwrap()), Ok(number), "{json}");
        }
        let long = format!("\"{}\"", "1".repeat(LONGEST + 1));
        for (json, refusal) in [
            ("null", Refusal::Type),
            ("[1]", Refusal::Type),
            ("{}", Refusal::Type),
            ("1.5", Refusal::Fraction),
            ("0.5", Refusal::Fraction),
            ("1e19", Refusal::Size),
            ("-1e300", Refusal::Size),
            (long.as_str(), Refusal::Size),
        ] {
            assert_eq!(read(&serde_json::from_str(json).unwrap()), Err(refusal), "{json}");
        }
        for text in [
            "", " ", "one", "true", "null", "0x1", "1e2", "1.5", "1.", ".0", ".", "1.0_0", "_1", "1_", "1__0", "-_1",
            "++1", "+ 7", "1 0", "+", "-", "\u{661}", "\u{ff17}", "1,000", "1.0.0", "NaN", "inf",
        ] {
            assert_eq!(read(&Value::from(text)), Err(Refusal::Text), "{text:?}");
        }
    }
}
