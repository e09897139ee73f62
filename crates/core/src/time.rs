//! Times as they stand in frames, records and stream entries.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Reads an RFC 3339 time of any offset; one without a zone is UTC, as some hosts send it. `None` where it is no time.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    read(text).or_else(|| read(&with_short_fraction(text)?))
}

fn read(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let civil: DateTime = text.parse().ok()?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// Cuts a fraction after nine digits: the protocol allows any number, a [`Timestamp`] holds no more.
fn with_short_fraction(text: &str) -> Option<String> {
    let (whole, rest) = text.split_once('.')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, zone) = rest.split_at_checked(digits)?;
    fraction.get(..9).filter(|_| digits > 9).map(|fraction| format!("{whole}.{fraction}{zone}"))
}

/// Writes a time as atproto does: UTC, milliseconds, `Z`.
#[must_use]
pub fn format(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// Writes the time of day as broadcast events carry it: `HH:MM:SS` in UTC.
#[must_use]
pub fn clock(time: Timestamp) -> String {
    let seconds = time.as_second().rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_offset_is_converted_and_none_is_utc() {
        let at = |text| parse(text).map(format);
        assert_eq!(at("2026-02-24T14:05:20.521546").as_deref(), Some("2026-02-24T14:05:20.521Z"));
        assert_eq!(at("2026-02-24T14:05:20+02:30").as_deref(), Some("2026-02-24T11:35:20.000Z"));
        assert_eq!(at("2026-02-24T14:05:20Z").as_deref(), Some("2026-02-24T14:05:20.000Z"));
        assert_eq!(parse("2026-02-24T14:05:20.1234567899999Z"), parse("2026-02-24T14:05:20.123456789Z"));
        assert_eq!(at("2026-02-24T14:05:20.12345678901+02:30").as_deref(), Some("2026-02-24T11:35:20.123Z"));
        for bad in ["", "yesterday", "2026-13-01T00:00:00Z", "2026-02-24T14:05:20.1234567890 Z", ".1234567890"] {
            assert_eq!(at(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_clock_is_utc() {
        assert_eq!(clock(parse("2026-02-24T23:05:09.9+01:00").unwrap()), "22:05:09");
    }
}
