//! How much memory the JSON of an entry takes once it is decoded, estimated from its text.
//!
//! A list of zeros is two bytes an item as text and up to 48 as a tree, a map of one entry some 900: what is held is counted
//! so, or a megabyte of text is a gigabyte of memory.

/// What a value takes in its list, whose memory grows by doubling.
const VALUE: usize = 48;

/// What the memory of a list or a text takes besides.
const ALLOCATED: usize = 32;

/// The least room of a list that is not empty: four values.
const LIST: usize = 128 + ALLOCATED;

/// A map that is not empty has at least a node of eleven places.
const MAP: usize = 640 + ALLOCATED;

/// What an entry of a map takes in nodes that are half full.
const ENTRY: usize = 144;

/// Returns about how many bytes the trees of a JSON text take, rather too many than too few.
pub(crate) fn weigh(json: &[u8]) -> usize {
    let mut weight = VALUE;
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        weight += match byte {
            b',' => VALUE,
            b':' => ENTRY,
            b'[' | b'{' => match after.first() {
                Some(b']' | b'}') => 0,
                _ if byte == b'[' => LIST,
                _ => MAP,
            },
            b'"' => {
                let text = text_len(after);
                rest = after.get(text + 1..).unwrap_or_default();
                if text == 0 { 0 } else { text + ALLOCATED }
            }
            _ => 0,
        };
    }
    weight
}

/// Returns how many bytes stand before the quote that ends a text.
fn text_len(bytes: &[u8]) -> usize {
    let mut is_escaped = false;
    let end = bytes.iter().position(|byte| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    });
    end.unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What a tree takes at least: the places of its values, without what stands between them.
    fn least(value: &Value) -> usize {
        let text = |text: &str| text.len();
        size_of::<Value>()
            + match value {
                Value::String(string) => text(string),
                Value::Array(items) => items.iter().map(least).sum(),
                Value::Object(map) => {
                    let nodes = if map.is_empty() { 0 } else { 11 * (size_of::<Value>() + size_of::<String>()) };
                    let held: usize = map.iter().map(|(key, value)| text(key) + least(value)).sum();
                    nodes.max(held)
                }
                _ => 0,
            }
    }

    #[test]
    fn a_tree_weighs_no_less_than_it_takes() {
        let many = |item: &str| format!("[{}]", vec![item; 1_000].join(","));
        let items =
            ["0", "null", r#""""#, r#""x\"y""#, "[]", "{}", "[0]", r#"{"":0}"#, r#"{"$bytes":""}"#, "[[[1,2],3]]"];
        for item in items {
            let text = many(item);
            let (weight, least) = (weigh(text.as_bytes()), least(&serde_json::from_str(&text).unwrap()));
            assert!(weight >= least, "{item}: {weight} of {least}");
            assert!(weight <= least * 4, "{item}: {weight} of {least}");
        }
    }

    #[test]
    fn what_is_cut_or_no_json_is_weighed_too() {
        for text in ["", "\"", "\"\\", "[", "{{{{", ",,,"] {
            assert!(weigh(text.as_bytes()) < 4_000, "{text}");
        }
    }

    #[test]
    fn a_usual_post_weighs_some_kilobytes() {
        let post = r#"{"repo":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","ops":[{"action":"create","path":"app.bsky.feed.post/3m","cid":"bafy","record":{"$type":"app.bsky.feed.post","text":"some words","langs":["en"],"createdAt":"2026-07-04T14:38:08.999Z"}}],"rev":"3m","time":"2026-07-04T14:38:08.999Z","commit":"bafy","since":null}"#;
        assert!((2_000..8_000).contains(&weigh(post.as_bytes())), "{}", weigh(post.as_bytes()));
    }
}
