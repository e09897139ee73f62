//! Words of others in our lines: bounded, and without anything that a terminal obeys.

use std::time::Duration;

use penstock_core::causes::chain;

/// How much of a name of somebody else's is shown.
const NAME: usize = 80;

/// How many characters of an error are shown.
const ERROR: usize = 400;

/// How many names of a list are shown.
const NAMES: usize = 5;

/// Escapes what is no printable character: a line stays a line.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // What turns the direction of writing or is not seen at all would make a name look like another.
        let hidden = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if character.is_control() || hidden {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// Shows a name of somebody else's.
pub(crate) fn name(text: &str) -> String {
    let mut shown: String = text.chars().take(NAME).collect();
    if text.chars().nth(NAME).is_some() {
        shown.push('…');
    }
    one_line(&shown)
}

/// Shows the first of a list of names, and how many more there are.
pub(crate) fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<_> = all.into_iter().collect();
    let mut shown = all.iter().take(NAMES).map(|text| name(text)).collect::<Vec<_>>().join(", ");
    if all.len() > NAMES {
        shown += &format!(" and {} more", all.len() - NAMES);
    }
    shown
}

/// Shows a span of time in its largest unit: nobody needs the milliseconds of an hour.
pub(crate) fn span(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        secs @ 1..120 => format!("{secs} s"),
        secs @ 120..7_200 => format!("{} min", secs / 60),
        secs @ 7_200..172_800 => format!("{} h", secs / 3_600),
        secs => format!("{} d", secs / 86_400),
    }
}

/// Shows a size.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// Shows an error with its causes, shortened.
pub(crate) fn error(error: &dyn std::error::Error) -> String {
    chain(error).chars().take(ERROR).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_harmless() {
        assert_eq!(name(&"x".repeat(200)), format!("{}…", "x".repeat(NAME)));
        assert_eq!(name("a\u{202e}b\u{7}"), "a\\u{202e}b\\u{7}");
        assert_eq!(names(["a", "b"]), "a, b");
        assert_eq!(names(["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }

    #[test]
    fn spans_and_sizes_are_short() {
        assert_eq!(span(Duration::from_millis(250)), "250 ms");
        assert_eq!(span(Duration::from_secs(90)), "90 s");
        assert_eq!(span(Duration::from_secs(3_600)), "60 min");
        assert_eq!(span(Duration::from_secs(90_000)), "25 h");
        assert_eq!(span(Duration::from_secs(400_000)), "4 d");
        assert_eq!(
            (bytes(9), bytes(25_000), bytes(25_000_000_000)),
            ("9 bytes".into(), "25 kB".into(), "25 GB".into())
        );
    }
}
