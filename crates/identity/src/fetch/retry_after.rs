//! How long a host asks to be left alone.

use std::time::{Duration, SystemTime};

/// The longest that is honoured: what comes after is asked for anyway.
const LONGEST: Duration = Duration::from_secs(3600);

/// Reads `Retry-After`: seconds, or a date.
pub(super) fn read(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let seconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are very long.
        Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    };
    seconds.map(|pause| pause.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_bounded() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, pause) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("86400", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:00:00 GMT", Some(3600)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(read(text, now), pause.map(Duration::from_secs), "{text}");
        }
    }
}
