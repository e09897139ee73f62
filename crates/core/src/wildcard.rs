//! Patterns in which `*` stands for any number of characters.

/// Says whether a text is what the pattern says, as a whole.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == text;
    }
    // What stands anywhere, which is asked most often: of every live event, for every client with a filter.
    let middle = pattern.strip_prefix('*').and_then(|rest| rest.strip_suffix('*'));
    if let Some(middle) = middle.filter(|middle| !middle.contains('*')) {
        return text.contains(middle);
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        // What came before is in the middle: its first occurrence leaves most for those that follow.
        if let Some(middle) = last.replace(part) {
            match rest.split_once(middle) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
    }
    match last {
        None => rest.is_empty(),
        Some(end) => rest.ends_with(end),
    }
}

/// Says whether the name of a collection is what the pattern says; one without `*` stands for what is below it, too:
/// `app.bsky.feed` for `app.bsky.feed.post`.
#[must_use]
pub fn fits_name(pattern: &str, name: &str) -> bool {
    let below = || name.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'));
    fits(pattern, name) || (!pattern.contains('*') && below())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `fits` means, without a thought for time.
    fn means(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|from| means(rest, &text[from..])),
            Some((byte, rest)) => text.first() == Some(byte) && means(rest, &text[1..]),
        }
    }

    #[test]
    fn every_short_pattern_fits_what_it_means() {
        let all = |letters: &[u8], longest: u32| {
            let letters = letters.to_vec();
            (0..=longest).flat_map(move |length| {
                let letters = letters.clone();
                (0..letters.len().pow(length)).map(move |number| {
                    let letter = |at| letters[number / letters.len().pow(at) % letters.len()] as char;
                    (0..length).map(letter).collect::<String>()
                })
            })
        };
        let texts: Vec<String> = all(b"ab", 5).collect();
        for pattern in all(b"ab*", 5) {
            for text in &texts {
                assert_eq!(fits(&pattern, text), means(pattern.as_bytes(), text.as_bytes()), "{pattern:?} {text:?}");
            }
        }
    }

    #[test]
    fn a_name_stands_for_what_is_below_it() {
        for (pattern, name, expected) in [
            ("app.bsky.feed", "app.bsky.feed.post", true),
            ("app.bsky.feed.post", "app.bsky.feed.post", true),
            ("app.bsky.feed.post", "app.bsky.feed.postgate", false),
            ("app.bsky.feed.p", "app.bsky.feed.post", false),
            ("*.feed", "app.bsky.feed.post", false),
        ] {
            assert_eq!(fits_name(pattern, name), expected, "{pattern} {name}");
        }
    }
}
