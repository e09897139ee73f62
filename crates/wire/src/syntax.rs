//! The syntax of DIDs, TIDs and record paths, as the atproto specification has it.

// Plain loops over bytes: these run for every op, and the searches of str cost more than the rest of them.

/// Whether `text` is a DID of any method, at most 2,048 bytes.
pub(crate) fn is_did(text: &str) -> bool {
    let Some(rest) = text.as_bytes().strip_prefix(b"did:") else { return false };
    let method = rest.iter().take_while(|byte| byte.is_ascii_lowercase()).count();
    let Some((method, [b':', id @ ..])) = rest.split_at_checked(method) else { return false };
    text.len() <= 2048
        && !method.is_empty()
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'%' | b'-'))
        && !matches!(id.last(), None | Some(b':' | b'%'))
}

/// Whether `text` is a TID: 13 characters of base32-sortable, the highest bit zero.
pub(crate) fn is_tid(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 13
        && bytes.iter().all(|byte| matches!(byte, b'2'..=b'7' | b'a'..=b'z'))
        && bytes.first().is_some_and(|first| *first <= b'j')
}

/// Splits a record's path into its collection and key, if both are well formed.
pub(crate) fn split_path(path: &str) -> Option<(&str, &str)> {
    let slash = path.bytes().position(|byte| byte == b'/')?;
    let (collection, rkey) = (path.get(..slash)?, path.get(slash + 1..)?);
    (is_nsid(collection.as_bytes()) && is_rkey(rkey.as_bytes())).then_some((collection, rkey))
}

/// Whether `text` is an NSID: the labels of a domain in reverse, at least two, and a name; at most 317 bytes.
fn is_nsid(text: &[u8]) -> bool {
    let mut labels = 0;
    let mut last: &[u8] = b"";
    for label in text.split(|byte| *byte == b'.') {
        let sound = !label.is_empty()
            && label.len() <= 63
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && label.first() != Some(&b'-')
            && label.last() != Some(&b'-');
        if !sound {
            return false;
        }
        labels += 1;
        last = label;
    }
    labels >= 3
        && text.len() <= 317
        && text.first().is_some_and(u8::is_ascii_alphabetic)
        && last.first().is_some_and(u8::is_ascii_alphabetic)
        && !last.contains(&b'-')
}

/// Whether `text` is a record key, 1 to 512 bytes.
fn is_rkey(text: &[u8]) -> bool {
    (1..=512).contains(&text.len())
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'~' | b'-'))
        && !matches!(text, b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_exactly_one_slash_and_two_sound_halves() {
        assert_eq!(split_path("app.bsky.feed.like/3k"), Some(("app.bsky.feed.like", "3k")));
        for bad in ["", "/", "app.bsky.feed.like", "app.bsky.feed.like/", "/3k", "a.b.c/d/e", "a.b.c/..", "a.b/c"] {
            assert_eq!(split_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let label = |len| format!("com.{}.x", "o".repeat(len)).into_bytes();
        assert!(is_rkey(&[b'o'; 512]) && !is_rkey(&[b'o'; 513]));
        assert!(is_did(&format!("did:x:{}", "v".repeat(2042))) && !is_did(&format!("did:x:{}", "v".repeat(2043))));
        assert!(is_nsid(&label(63)) && !is_nsid(&label(64)));
    }

    /// The interop lists of the specification, where they are at hand.
    #[test]
    fn the_specifications_own_lists_are_told_apart() {
        type Check = fn(&str) -> bool;
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/interop/syntax");
        let lists: [(&str, Check); 4] = [
            ("did", is_did),
            ("tid", is_tid),
            ("nsid", |text| is_nsid(text.as_bytes())),
            ("recordkey", |text| is_rkey(text.as_bytes())),
        ];
        for (name, check) in lists {
            for (file, expected) in [("valid", true), ("invalid", false)] {
                let Ok(list) = std::fs::read_to_string(format!("{folder}/{name}_syntax_{file}.txt")) else { return };
                for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                    assert_eq!(check(line), expected, "{name}: {line}");
                }
            }
        }
    }
}
