//! JSON that is nested more deeply than readers take by themselves.
//!
//! `serde_json` stops at 128 levels. Hosts accept records beyond that, so whatever reads one, or a row made of one, reads it
//! here.

use serde::Deserialize;

/// How many lists and maps may be inside each other: what a stack of one megabyte holds several times over.
pub const MAX_DEPTH: usize = 256;

/// Reads JSON of up to [`MAX_DEPTH`] levels.
///
/// # Errors
/// Those of `serde_json`, whose own for its recursion limit comes for what is deeper.
pub fn from_slice<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    match serde_json::from_slice(json) {
        // Only what fails is looked through.
        Err(_) if (DEPTH_READ..=MAX_DEPTH).contains(&depth(json)) => {
            let mut input = serde_json::Deserializer::from_slice(json);
            input.disable_recursion_limit();
            let value = T::deserialize(&mut input)?;
            input.end().map(|()| value)
        }
        answer => answer,
    }
}

/// Reads JSON of up to [`MAX_DEPTH`] levels.
///
/// # Errors
/// As those of [`from_slice`].
pub fn from_str<'a, T: Deserialize<'a>>(json: &'a str) -> serde_json::Result<T> {
    from_slice(json.as_bytes())
}

/// Where `serde_json` stops by itself.
const DEPTH_READ: usize = 128;

/// Counts how many brackets are open at once, at most.
fn depth(json: &[u8]) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    let mut rest = json.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'[' | b'{' => {
                open += 1;
                most = most.max(open);
            }
            b']' | b'}' => open = open.saturating_sub(1),
            // To the end of the string.
            b'"' => {
                while let Some(byte) = rest.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            rest.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}{}", r#"{"a":["#.repeat(levels / 2), "]}".repeat(levels / 2))
    }

    #[test]
    fn records_are_read_as_deep_as_hosts_take_them_on_a_small_stack() {
        let read = || {
            for levels in [2, 126, 128, 130, 200, MAX_DEPTH] {
                let value: Value = from_str(&nested(levels)).unwrap();
                assert_eq!(value.to_string(), nested(levels));
                assert!(from_str::<Value>(&format!("{} x", nested(levels))).is_err());
            }
            for levels in [MAX_DEPTH + 2, 100_000] {
                let error = from_str::<Value>(&nested(levels)).unwrap_err();
                assert!(error.to_string().contains("recursion limit"), "{error}");
            }
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(read).unwrap().join().unwrap();
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        assert_eq!(depth(br#"[{"[[[\"[[":"]]{"}, 1]"#), 2);
        assert_eq!(depth(br#"["\\", [1]]"#), 2);
        assert_eq!(depth(b"]]["), 1);
        assert_eq!(depth(br#"["#), 1);
        assert_eq!(depth(br#"["a\"#), 1);
    }
}
