//! The streams of dead letters: their shape and their bounds.
//!
//! There are two: what workers gave up, which stands in PostgreSQL too, and what ingest set aside, which stands nowhere else
//! until a worker has copied it. So a flood of the one never pushes out the other.

use crate::settings::Settings;

pub use crate::keys::Author;

/// The `type` of a frame that could not be decoded: `data` is the frame in base64, and it cannot be replayed.
pub const RAW: &str = "raw";

/// The `type` of a message of the message buffer: `data` is what stood in its queue, and cannot be replayed into the stream.
pub const MESSAGE: &str = "message";

/// From which number on the second half of an ID says that the letter is ingest's.
pub const OURS: u64 = 1_000_000_000_000;

/// Once the place is full, one repo may hold this part of it.
pub const SHARE: u64 = 8;

/// The longest DID that a letter is put down to.
const MAX_DID: usize = 2048;

/// How much one place of dead letters holds at most.
///
/// A letter weighs its bytes, and at least as much as makes the greatest count of letters fill the place: one sum bounds both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most bytes.
    pub bytes: u64,
    /// The most letters.
    pub count: u64,
}

/// The fields of the hash beside each of the two streams.
pub mod held {
    /// What all letters weigh.
    pub const WEIGHT: &str = "weight";
    /// The newest letter that is counted.
    pub const THROUGH: &str = "through";
    /// The newest letter that stands in PostgreSQL too, beside ingest's letters.
    pub const COPIED: &str = "copied";
    /// The worker that copies, and until when, in ms; beside ingest's letters.
    pub const COPIER: &str = "copier";
    /// See [`COPIER`].
    pub const COPIER_UNTIL: &str = "copierUntil";
    /// The last entry that a replay put into the stream, beside the workers' letters.
    pub const REPLAYED: &str = "replayed";
    /// The least ID that any had at first that was replayed and may not be settled yet.
    pub const REPLAYED_ORDER: &str = "replayedOrder";
    /// Traces of deletes below this ID may be gone: what is older cannot be replayed.
    pub const BELOW: &str = "below";
    /// `worker.letterHold` in ms, as workers have it.
    pub const HOLD: &str = "hold";
}

const SCRIPT: &str = include_str!("dead_letter.lua");

/// Lua functions that compare and read IDs: `id_is_below(id, other)`, `id_in_field(key, field)`, `id_time()`.
pub const LUA_IDS: &str = include_str!("ids.lua");

// === impl Bounds ===

impl Bounds {
    /// Those of each of the two streams in Redis.
    #[must_use]
    pub fn in_redis(settings: &Settings) -> Self {
        Self { bytes: settings.redis.letter_bytes, count: settings.redis.letter_count }
    }

    /// Those of the table in PostgreSQL.
    #[must_use]
    pub fn in_postgres(settings: &Settings) -> Self {
        Self { bytes: settings.postgres.letter_bytes, count: settings.postgres.letter_count }
    }

    /// What a letter weighs at least.
    #[must_use]
    pub fn least(self) -> u64 {
        (self.bytes / self.count.max(1)).max(1)
    }

    /// What the letters of one repo may weigh once the place is full.
    #[must_use]
    pub fn share(self) -> u64 {
        self.bytes / SHARE
    }
}

/// A Lua function `dead_letter(key, type, data, seq, origId, deliveries, error, consumer, repo)` for the scripts that add one,
/// and `letter_remove(key, id, fields)` for those that take one away. `repo` is the DID whose letter it is, if that is known.
///
/// They touch the keys that [`Keys::beside_letters`](crate::keys::Keys::beside_letters) names.
#[must_use]
pub fn script(author: Author, bounds: Bounds) -> String {
    let (most, least, share) = (bounds.bytes, bounds.least(), bounds.share());
    let ours = author == Author::Ingest;
    format!(
        "local LETTER_MOST, LETTER_LEAST, LETTER_SHARE, LETTER_OF_INGEST = {most}, {least}, {share}, {ours}\n{SCRIPT}"
    )
}

/// Reads whose entry it is from the beginning of its data, where producers write it; nothing of an author's comes before.
#[must_use]
pub fn repo_of(data: &[u8]) -> Option<&str> {
    let rest = [&b"{\"repo\":"[..], b"{\"did\":"].iter().find_map(|begin| data.strip_prefix(*begin))?;
    let rest = rest.trim_ascii_start().strip_prefix(b"\"")?;
    let end = rest.iter().take(MAX_DID + 1).position(|byte| matches!(byte, b'"' | b'\\'))?;
    let did = str::from_utf8(rest.get(..end)?).ok()?;
    (did.starts_with("did:") && rest.get(end) == Some(&b'"')).then_some(did)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;
    use crate::stream::field;

    #[test]
    fn the_script_says_the_fields_in_order_and_the_names_beside_the_letters() {
        let order = [
            field::TYPE,
            field::DATA,
            field::SEQ,
            field::ORIG_ID,
            field::DELIVERIES,
            field::ERROR,
            field::CONSUMER,
            field::REPO,
        ];
        let adding = SCRIPT.split("local function dead_letter(").nth(1).unwrap();
        let places: Vec<_> = order.iter().map(|name| adding.find(&format!("'{name}'")).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        let keys = Keys::default();
        for author in [Author::Worker, Author::Ingest] {
            let key = keys.letters_of(author);
            for beside in keys.beside_letters(author) {
                let suffix = beside.strip_prefix(&key).unwrap();
                assert!(SCRIPT.contains(&format!("key .. '{suffix}'")), "{suffix}");
            }
        }
        assert!(SCRIPT.contains(&format!("LETTER_OURS = {OURS}")) && SCRIPT.contains(&format!("'{}'", held::WEIGHT)));
        assert!(SCRIPT.contains(&format!("'{}'", held::THROUGH)) && SCRIPT.contains(&format!("'{MESSAGE}'")));
    }

    #[test]
    fn the_greatest_count_of_small_letters_fills_the_place() {
        let bounds = Bounds { bytes: 64_000_000, count: 10_000 };
        assert_eq!((bounds.least(), bounds.share()), (6_400, 8_000_000));
        assert!(script(Author::Ingest, bounds).starts_with(
            "local LETTER_MOST, LETTER_LEAST, LETTER_SHARE, LETTER_OF_INGEST = 64000000, 6400, 8000000, true\n"
        ));
        assert_eq!(Bounds { bytes: 5, count: 100 }.least(), 1);
    }

    #[test]
    fn whose_entry_it_is_stands_at_the_beginning_and_nowhere_else() {
        for (data, did) in [
            (r#"{"repo":"did:plc:a","ops":["#, Some("did:plc:a")),
            (r#"{"repo": "did:plc:a", "ops": []}"#, Some("did:plc:a")),
            (r#"{"did":"did:web:b","active":true}"#, Some("did:web:b")),
            (r#"{"ops":[{"record":{"repo":"did:plc:victim"}}],"repo":"did:plc:a"}"#, None),
            (r#"{"repo":"did:plc:\u0061"}"#, None),
            (r#"{"repo":"alice.test"}"#, None),
            (r#"{"repo":"did:plc:cut"#, None),
            ("", None),
        ] {
            assert_eq!(repo_of(data.as_bytes()), did, "{data}");
        }
        let endless = format!(r#"{{"repo":"did:plc:{}""#, "a".repeat(MAX_DID));
        assert_eq!(repo_of(endless.as_bytes()), None);
        assert_eq!(repo_of(b"{\"repo\":\"did:plc:\xff\"}"), None);
    }
}
