//! Figures and names as a person reads them in a terminal.

use std::time::Duration;

/// What stands where nothing is known.
pub(crate) const UNKNOWN: &str = "?";

/// Writes every digit below ten million in groups of three, and above that four digits with a unit.
pub(crate) fn count(value: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M")];
    if value < 10_000_000 {
        return grouped(value);
    }
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| value >= *unit).unwrap_or((1, ""));
    format!("{:.2}{name}", value as f64 / unit as f64)
}

/// Writes what may not be known.
pub(crate) fn count_or_unknown(value: Option<u64>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), count)
}

/// Writes a rate: one decimal below ten, and never `0` for something that is not.
pub(crate) fn rate(value: Option<f64>) -> String {
    match value {
        None => format!("{UNKNOWN}/s"),
        Some(value) if value <= 0.0 => "0/s".to_owned(),
        Some(value) if value < 0.05 => "<0.1/s".to_owned(),
        Some(value) if value < 9.95 => format!("{value:.1}/s"),
        Some(value) => format!("{}/s", count(value.round() as u64)),
    }
}

/// Writes how long, in the two coarsest units that say something.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if !seconds.is_finite() {
        return UNKNOWN.to_owned();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    if seconds < 119.5 {
        return format!("{seconds:.0} s");
    }
    let minutes = (seconds / 60.0).round() as u64;
    let (hours, days) = (minutes / 60, minutes / 60 / 24);
    match minutes {
        0..120 => format!("{minutes} min"),
        120..2880 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Writes what may not be known.
pub(crate) fn duration_or_unknown(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| UNKNOWN.to_owned(), duration)
}

/// Writes an age in whole seconds: one that is drawn each second needs no tenths.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs_f64();
    if seconds < 9.95 { format!("{} s", seconds as u64) } else { duration(seconds) }
}

/// Returns the host of an address; what is no address stays as it is.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Replaces what a terminal would obey or what turns the direction of text: names come from the network.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|character| if obeyed(character) { '\u{fffd}' } else { character }).collect()
}

/// Says whether a terminal acts on it in the place of showing it.
pub(crate) fn obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_keep_their_digits_until_they_are_long() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (9_999_999, "9,999,999"),
            (10_000_000, "10.00M"),
            (12_345_678_900, "12.35G"),
            (u64::MAX, "18446744.07T"),
        ];
        for (value, expected) in cases {
            assert_eq!(count(value), expected);
        }
        assert_eq!(count_or_unknown(None), "?");
    }

    #[test]
    fn a_rate_that_is_not_nothing_is_not_shown_as_nothing() {
        let cases = [
            (None, "?/s"),
            (Some(0.0), "0/s"),
            (Some(-1.0), "0/s"),
            (Some(0.01), "<0.1/s"),
            (Some(9.94), "9.9/s"),
            (Some(9.96), "10/s"),
            (Some(1234.4), "1,234/s"),
        ];
        for (value, expected) in cases {
            assert_eq!(rate(value), expected);
        }
    }

    #[test]
    fn durations_have_round_units() {
        let cases = [
            (-3.0, "0.0 s"),
            (0.84, "0.8 s"),
            (12.2, "12 s"),
            (119.4, "119 s"),
            (119.6, "2 min"),
            (7199.0, "2 h 00 min"),
            (15_000.0, "4 h 10 min"),
            (200_000.0, "2 d 7 h"),
            (f64::NAN, "0.0 s"),
            (f64::INFINITY, "?"),
        ];
        for (value, expected) in cases {
            assert_eq!(duration(value), expected, "{value}");
        }
        assert_eq!(age(Duration::from_millis(3900)), "3 s");
    }

    #[test]
    fn a_host_is_shown_without_login_and_path() {
        let cases = [
            ("wss://a:b@relay.test:443/x?y", "relay.test:443"),
            ("relay.test", "relay.test"),
            ("", ""),
            ("ws://h", "h"),
        ];
        for (url, expected) in cases {
            assert_eq!(host(url), expected);
        }
    }

    #[test]
    fn nothing_from_the_network_moves_the_cursor_or_turns_the_text() {
        assert_eq!(plain("a\u{1b}[2Jb\u{9b}c\u{202e}d\u{200f}\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}\u{fffd}");
        assert_eq!(plain("→ alicé.test 雨"), "→ alicé.test 雨");
    }
}
