//! The `data` of a stream entry: its words, and writers that append its JSON to a buffer without a tree between.
//!
//! Key order and presence are part of the contract, so they stand here once; records go straight into the same buffer.

use std::str::FromStr;

/// What a commit does to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The record is new.
    Create,
    /// The record is rewritten.
    Update,
    /// The record is gone.
    Delete,
}

/// The kinds of event that make an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Records of one repo changed.
    Commit,
    /// A handle or DID document may have changed.
    Identity,
    /// An account's hosting status changed.
    Account,
}

/// A word that names no variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown variant")]
pub struct UnknownWord;

/// A one in each byte of a word, and the highest bit of each.
const ONES: u64 = u64::from_ne_bytes([1; 8]);
const TOPS: u64 = ONES << 7;

/// Appends the data of one commit, op by op.
///
/// What is written is JSON only once [`finish`](Self::finish) has returned.
#[derive(Debug)]
pub struct CommitWriter<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

// === impl Action ===

impl Action {
    /// Returns the word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl FromStr for Action {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "create" => Ok(Self::Create),
            "update" => Ok(Self::Update),
            "delete" => Ok(Self::Delete),
            _ => Err(UnknownWord),
        }
    }
}

// === impl EventKind ===

impl EventKind {
    /// Returns the entry's `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Identity => "identity",
            Self::Account => "account",
        }
    }

    /// Returns the frame's `t`, which broadcasts and counters use too.
    #[must_use]
    pub fn frame_type(self) -> &'static str {
        match self {
            Self::Commit => "#commit",
            Self::Identity => "#identity",
            Self::Account => "#account",
        }
    }
}

impl FromStr for EventKind {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "commit" => Ok(Self::Commit),
            "identity" => Ok(Self::Identity),
            "account" => Ok(Self::Account),
            _ => Err(UnknownWord),
        }
    }
}

// === impl CommitWriter ===

impl<'o> CommitWriter<'o> {
    /// Opens the data of a commit to `repo`.
    pub fn start(out: &'o mut Vec<u8>, repo: &str) -> Self {
        out.extend_from_slice(b"{\"repo\":");
        write_string(out, repo);
        out.extend_from_slice(b",\"ops\":[");
        Self { out, empty: true }
    }

    /// Appends a create or an update whose record the frame does not hold.
    pub fn op(&mut self, action: Action, path: &str, cid: &str) {
        self.open(action, path);
        self.cid(cid);
        self.out.push(b'}');
    }

    /// Appends a create or an update of which not even the CID is known.
    pub fn op_without_cid(&mut self, action: Action, path: &str) {
        self.open(action, path);
        self.out.extend_from_slice(b",\"cid\":null}");
    }

    /// Appends a create or an update; `record` appends the record's JSON.
    ///
    /// # Errors
    /// Hands on the error of `record`; then nothing is appended.
    pub fn op_with_record<E>(
        &mut self,
        action: Action,
        path: &str,
        cid: &str,
        record: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (before, empty) = (self.out.len(), self.empty);
        self.open(action, path);
        self.cid(cid);
        self.out.extend_from_slice(b",\"record\":");
        if let Err(error) = record(self.out) {
            self.out.truncate(before);
            self.empty = empty;
            return Err(error);
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Appends a delete.
    pub fn delete(&mut self, path: &str) {
        self.open(Action::Delete, path);
        self.out.push(b'}');
    }

    /// Returns how many bytes the buffer holds.
    #[must_use]
    pub fn written(&self) -> usize {
        self.out.len()
    }

    /// Closes the data.
    ///
    /// `time` is RFC 3339, none where the host's text was no time; `since` is none where absent or empty.
    pub fn finish(self, rev: &str, time: Option<&str>, commit: &str, since: Option<&str>) {
        self.finish_missing(rev, time, commit, since, 0);
    }

    /// Closes the data of a commit that lacks as many records, or ops, that its repo has.
    pub fn finish_missing(self, rev: &str, time: Option<&str>, commit: &str, since: Option<&str>, missing: usize) {
        let out = self.out;
        out.extend_from_slice(b"],\"rev\":");
        write_string(out, rev);
        out.extend_from_slice(b",\"time\":");
        write_optional(out, time);
        out.extend_from_slice(b",\"commit\":");
        write_string(out, commit);
        out.extend_from_slice(b",\"since\":");
        write_optional(out, since.filter(|since| !since.is_empty()));
        if missing > 0 {
            out.extend_from_slice(b",\"missing\":");
            out.extend_from_slice(missing.to_string().as_bytes());
        }
        out.push(b'}');
    }

    fn open(&mut self, action: Action, path: &str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.extend_from_slice(b"{\"action\":\"");
        self.out.extend_from_slice(action.as_str().as_bytes());
        self.out.extend_from_slice(b"\",\"path\":");
        write_string(self.out, path);
    }

    fn cid(&mut self, cid: &str) {
        self.out.extend_from_slice(b",\"cid\":");
        write_string(self.out, cid);
    }
}

/// Appends the data of an identity event.
pub fn write_identity(out: &mut Vec<u8>, did: &str, handle: Option<&str>, time: Option<&str>) {
    out.extend_from_slice(b"{\"did\":");
    write_string(out, did);
    out.extend_from_slice(b",\"handle\":");
    write_optional(out, handle);
    out.extend_from_slice(b",\"time\":");
    write_optional(out, time);
    out.push(b'}');
}

/// Appends the data of an account event.
pub fn write_account(out: &mut Vec<u8>, did: &str, active: bool, status: Option<&str>, time: Option<&str>) {
    out.extend_from_slice(b"{\"did\":");
    write_string(out, did);
    out.extend_from_slice(if active { b",\"active\":true" } else { b",\"active\":false" });
    out.extend_from_slice(b",\"status\":");
    write_optional(out, status);
    out.extend_from_slice(b",\"time\":");
    write_optional(out, time);
    out.push(b'}');
}

/// Appends a JSON string; whatever needs no escape is copied in runs.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.push(b'"');
    loop {
        let (run, after) = rest.split_at(plain_run(rest));
        out.extend_from_slice(run);
        let Some((&byte, after)) = after.split_first() else { break };
        write_escape(out, byte);
        rest = after;
    }
    out.push(b'"');
}

/// Appends a JSON string of bytes that have to be UTF-8; returns whether they are.
pub fn write_utf8(out: &mut Vec<u8>, bytes: &[u8]) -> bool {
    // Most texts are ASCII without anything to escape, which one look shows.
    if is_plain_ascii(bytes) {
        out.reserve(bytes.len() + 2);
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
        return true;
    }
    let text = str::from_utf8(bytes);
    text.inspect(|text| write_string(out, text)).is_ok()
}

/// Whether no byte needs an escape or belongs to a longer character.
fn is_plain_ascii(bytes: &[u8]) -> bool {
    let is_plain = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        word & TOPS == 0 && !holds_special(word)
    };
    let (words, tail) = bytes.as_chunks::<8>();
    words.iter().all(is_plain)
        && match bytes.last_chunk() {
            Some(last) => is_plain(last),
            None => tail.iter().all(|byte| matches!(byte, 0x20..=0x7F) && !matches!(byte, b'"' | b'\\')),
        }
}

fn write_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// Returns how many leading bytes need no escape, eight at a step.
fn plain_run(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    match words.iter().position(|word| holds_special(u64::from_ne_bytes(*word))) {
        Some(word) => word * 8 + words.get(word).map_or(0, |word| plain_bytes(word)),
        // Looked at once more with what is before it, the tail is a whole word too.
        None => match bytes.last_chunk() {
            Some(last) if !holds_special(u64::from_ne_bytes(*last)) => bytes.len(),
            _ => words.len() * 8 + plain_bytes(tail),
        },
    }
}

fn plain_bytes(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\').unwrap_or(bytes.len())
}

/// Whether one of eight bytes is a control character, a quote or a backslash.
///
/// "Has a byte less than" and "has a byte equal to" of the Bit Twiddling Hacks: exact for the word as a whole, which is
/// all that is asked here. Bytes above 0x7F, of longer characters, never count.
fn holds_special(word: u64) -> bool {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let equal = (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash);
    (control | equal) & TOPS != 0
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0A => b'n',
        0x0C => b'f',
        0x0D => b'r',
        _ => {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xF)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_commit_has_the_keys_of_the_contract_in_order() {
        let data = written(|out| {
            let mut commit = CommitWriter::start(out, "did:plc:a");
            commit
                .op_with_record(Action::Create, "a.b.c/1", "bafy1", |out| {
                    out.extend_from_slice(b"{}");
                    Ok::<_, ()>(())
                })
                .unwrap();
            commit.op(Action::Update, "a.b.c/2", "bafy2");
            commit.delete("a.b.c/3");
            commit.finish("3k", Some("2026-01-01T00:00:00Z"), "bafy0", Some("3j"));
        });
        let expected = concat!(
            r#"{"repo":"did:plc:a","ops":[{"action":"create","path":"a.b.c/1","cid":"bafy1","record":{}},"#,
            r#"{"action":"update","path":"a.b.c/2","cid":"bafy2"},{"action":"delete","path":"a.b.c/3"}],"#,
            r#""rev":"3k","time":"2026-01-01T00:00:00Z","commit":"bafy0","since":"3j"}"#
        );
        assert_eq!(data, expected);
    }

    #[test]
    fn a_record_that_fails_leaves_its_neighbours_alone() {
        let data = written(|out| {
            let mut commit = CommitWriter::start(out, "did:plc:a");
            let fail = |commit: &mut CommitWriter<'_>| {
                let failed = commit.op_with_record(Action::Create, "a.b.c/1", "bafy1", |out| {
                    out.extend_from_slice(b"{\"torso\":");
                    Err("no record")
                });
                assert_eq!(failed, Err("no record"));
            };
            fail(&mut commit);
            commit.op(Action::Create, "a.b.c/1", "bafy1");
            fail(&mut commit);
            commit.op_without_cid(Action::Update, "a.b.c/2");
            commit.finish_missing("3k", None, "bafy0", None, 2);
        });
        let expected = concat!(
            r#"{"repo":"did:plc:a","ops":[{"action":"create","path":"a.b.c/1","cid":"bafy1"},"#,
            r#"{"action":"update","path":"a.b.c/2","cid":null}],"rev":"3k","time":null,"commit":"bafy0","since":null,"missing":2}"#
        );
        assert_eq!(data, expected);
    }

    #[test]
    fn a_commit_without_ops_and_since_says_so() {
        let expected = r#"{"repo":"did:plc:a","ops":[],"rev":"3k","time":null,"commit":"bafy0","since":null}"#;
        for since in [None, Some("")] {
            let data = written(|out| CommitWriter::start(out, "did:plc:a").finish("3k", None, "bafy0", since));
            assert_eq!(data, expected);
        }
    }

    #[test]
    fn identity_and_account_have_every_key_always() {
        let identity = |handle| written(|out| write_identity(out, "did:plc:a", handle, Some("t")));
        assert_eq!(identity(Some("a.test")), r#"{"did":"did:plc:a","handle":"a.test","time":"t"}"#);
        assert_eq!(identity(None), r#"{"did":"did:plc:a","handle":null,"time":"t"}"#);
        let account = |active, status| written(|out| write_account(out, "did:plc:a", active, status, None));
        assert_eq!(account(true, None), r#"{"did":"did:plc:a","active":true,"status":null,"time":null}"#);
        assert_eq!(
            account(false, Some("deleted")),
            r#"{"did":"did:plc:a","active":false,"status":"deleted","time":null}"#
        );
    }

    #[test]
    fn every_character_survives_at_every_place_in_a_word() {
        for character in (0..=0x2FF).chain([0x2028, 0xFFFD, 0x1F600]).filter_map(char::from_u32) {
            for before in 0..17 {
                let text = format!("{}{character}{}", "é".repeat(before / 3) + &"x".repeat(before), "tail\"of\\it");
                let json = written(|out| write_string(out, &text));
                assert_eq!(json, serde_json::to_string(&text).unwrap());
            }
        }
    }
}
