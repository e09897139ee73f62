//! The types a setting may have, and how each is read from text.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A type that a setting may have.
pub trait Value: Sized {
    /// What is allowed, for the error: `an integer`, `true or false`.
    const ALLOWED: &'static str;
    /// Whether the value is never printed whole.
    const SECRET: bool = false;

    /// Reads the value; `None` where the text is not one.
    fn parse(text: &str) -> Option<Self>;

    /// Says what is allowed in place of this very text, where that can be said closer than [`ALLOWED`](Self::ALLOWED).
    #[must_use]
    fn why(_text: &str) -> Option<String> {
        None
    }

    /// What stands where nobody set it and there is no default; `None` where it must be set.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }

    /// Shows a bad value in an error without the secrets in it.
    #[must_use]
    fn mask(text: &str) -> String {
        if Self::SECRET { "***".to_owned() } else { text.chars().take(200).collect() }
    }
}

/// A share in percent, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
    /// Pretty on a terminal, else JSON.
    Auto,
}

/// Where ingest starts when there is neither cursor nor checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next event.
    Live,
    /// With the oldest that the relay still has.
    Oldest,
}

/// Whether something is verified, and what becomes of what fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verification {
    /// It is not looked at.
    Off,
    /// Failures are counted.
    Count,
    /// What fails is refused.
    Enforce,
}

/// What becomes of a commit whose account's key cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// It is written, and counted.
    Pass,
    /// It waits.
    Hold,
}

// === impl Percent ===

impl Percent {
    /// Returns this share of a whole, rounded down.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        whole / 100 * u64::from(self.0) + whole % 100 * u64::from(self.0) / 100
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

// === impl Secret ===

impl Secret {
    /// Returns the text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl Value ===

macro_rules! whole_numbers {
    ($($type:ty, $allowed:literal;)*) => {
        $(impl Value for $type {
            const ALLOWED: &'static str = $allowed;

            fn parse(text: &str) -> Option<Self> {
                // Python's underscores and a person's commas are no part of a number here.
                text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
            }
        })*
    };
}

whole_numbers! {
    u16, "an integer";
    u32, "an integer";
    u64, "an integer";
    usize, "an integer";
    NonZeroU32, "a positive integer";
}

impl Value for bool {
    const ALLOWED: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        }
    }
}

impl Value for String {
    const ALLOWED: &'static str = "a non-empty string";

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Value for Secret {
    const ALLOWED: &'static str = "a non-empty string";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }
}

impl<T: Value> Value for Option<T> {
    const ALLOWED: &'static str = T::ALLOWED;
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn why(text: &str) -> Option<String> {
        T::why(text)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn mask(text: &str) -> String {
        T::mask(text)
    }
}

impl<T: Value> Value for Vec<T> {
    const ALLOWED: &'static str = T::ALLOWED;
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Option<Self> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(T::parse).collect()
    }

    fn mask(text: &str) -> String {
        T::mask(text)
    }
}

impl Value for Duration {
    const ALLOWED: &'static str = "a duration (such as 250ms, 30s, 5m or 1h)";

    fn parse(text: &str) -> Option<Self> {
        let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = text.split_at(unit);
        let number: f64 = number.parse().ok()?;
        let seconds = match unit {
            "ms" => number / 1000.0,
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            "d" => number * 86_400.0,
            _ => return None,
        };
        Self::try_from_secs_f64(seconds).ok()
    }
}

impl Value for SocketAddr {
    const ALLOWED: &'static str =
        "host:port, such as 127.0.0.1:8000, or [::]:8000 for every address (port 0 picks a free port)";

    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}").parse().ok(),
            None => text.parse().ok(),
        }
    }
}

impl Value for Percent {
    const ALLOWED: &'static str = "a percentage from 1 to 100";

    fn parse(text: &str) -> Option<Self> {
        let number: u8 = text.strip_suffix('%').unwrap_or(text).trim().parse().ok()?;
        (1..=100).contains(&number).then_some(Self(number))
    }
}

impl Value for LogFormat {
    const ALLOWED: &'static str = "pretty, json or auto";

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "pretty" => Some(Self::Pretty),
            "json" => Some(Self::Json),
            "auto" => Some(Self::Auto),
            _ => None,
        }
    }
}

impl Value for Start {
    const ALLOWED: &'static str = "live or oldest";

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "live" => Some(Self::Live),
            "oldest" => Some(Self::Oldest),
            _ => None,
        }
    }
}

impl Value for Verification {
    const ALLOWED: &'static str = "off, count or enforce";

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            // A bare off is false for many readers of YAML (https://yaml.org/type/bool.html).
            "off" | "false" => Some(Self::Off),
            "count" => Some(Self::Count),
            "enforce" => Some(Self::Enforce),
            _ => None,
        }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Count => "count",
            Self::Enforce => "enforce",
        })
    }
}

impl Value for Unresolved {
    const ALLOWED: &'static str = "pass or hold";

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "pass" => Some(Self::Pass),
            "hold" => Some(Self::Hold),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(Duration::parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(Duration::parse("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(Duration::parse("72h"), Some(Duration::from_secs(259_200)));
        for bad in ["", "5", "s", "-1s", "1 s", "1w", "1e400s", "..s"] {
            assert_eq!(Duration::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn percent_of_a_whole_does_not_overflow() {
        let percent = Percent::parse("80%").unwrap();
        assert_eq!(percent.of(500_000), 400_000);
        assert_eq!(percent.of(u64::MAX / 100 * 100), u64::MAX / 100 * 80);
        assert_eq!(percent.of(7), 5);
        assert_eq!(Percent::parse("0"), None);
        assert_eq!(Percent::parse("101"), None);
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "***");
        assert_eq!(<Option<Secret> as Value>::mask("hunter2"), "***");
    }
}
