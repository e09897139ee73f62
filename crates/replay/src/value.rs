//! The values that differ from loop to loop, and their texts.

use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest: what of a CID a rewriting changes.
pub(crate) type Digest = [u8; 32];

/// A value that differs from loop to loop but keeps its width.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Value {
    /// A repo's DID.
    Did(Box<[u8]>),
    /// A revision, as the integer behind its 13 characters.
    Tid(u64),
    /// The first 19 characters of a datetime that has no milliseconds, as seconds since 1970.
    Second(i64),
    /// The first 23 characters of a datetime that has them, as milliseconds since 1970.
    Milli(i64),
    /// The same of an event itself, and that event's seq: each has its own.
    Time(i64, u64),
    /// The digest inside a binary CID.
    Digest(Digest),
    /// The CID of a DAG-CBOR block as text, as a strongRef has it.
    CidText(Digest),
    /// The signature in the commit of this digest.
    Signature(Digest, Box<[u8]>),
}

impl Value {
    /// Writes the value as it stands in the recording.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Did(did) => did.to_vec(),
            Self::Tid(tid) => tid_text(*tid).to_vec(),
            Self::Second(second) => second_text(*second),
            Self::Milli(milli) | Self::Time(milli, _) => milli_text(*milli),
            Self::Digest(digest) => digest.to_vec(),
            Self::CidText(digest) => cid_text(digest),
            Self::Signature(_, signature) => signature.to_vec(),
        }
    }
}

/// The codec of DAG-CBOR.
pub(crate) const DAG_CBOR: u8 = 0x71;
const CID_TEXT: usize = 59;

/// Splits a binary CIDv1 with SHA-256 into codec and digest.
pub(crate) fn cid_digest(cid: &[u8]) -> Option<(u8, Digest)> {
    let [1, codec, 0x12, 0x20, digest @ ..] = cid else { return None };
    Some((*codec, digest.try_into().ok()?))
}

/// Reads the CID of a DAG-CBOR block from its 59 characters.
pub(crate) fn cid_of_text(text: &[u8]) -> Option<Digest> {
    let base32 = text.strip_prefix(b"bafyrei").filter(|_| text.len() == CID_TEXT).map(|_| &text[1..])?;
    let (codec, digest) = cid_digest(&BASE32_NOPAD_NOCASE.decode(base32).ok()?)?;
    (codec == DAG_CBOR && cid_text(&digest) == text).then_some(digest)
}

/// Writes the CID of a DAG-CBOR block as its 59 characters.
pub(crate) fn cid_text(digest: &Digest) -> Vec<u8> {
    let mut cid = [1, DAG_CBOR, 0x12, 0x20].to_vec();
    cid.extend_from_slice(digest);
    let mut text = format!("B{}", BASE32_NOPAD.encode(&cid)).into_bytes();
    text.make_ascii_lowercase();
    text
}

const TID_ALPHABET: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";
/// Characters of a TID.
pub(crate) const TID_CHARS: usize = 13;
/// Bits of a TID below its microseconds.
const TID_CLOCK_BITS: u32 = 10;

/// Reads a TID's integer: microseconds since 1970 and a clock id of 10 bits.
pub(crate) fn tid_of_text(text: &[u8]) -> Option<u64> {
    if text.len() != TID_CHARS {
        return None;
    }
    let tid = text.iter().try_fold(0_u128, |tid, char| {
        let digit = TID_ALPHABET.iter().position(|letter| letter == char)?;
        Some(tid << 5 | digit as u128)
    })?;
    // The top bit of a TID is 0.
    u64::try_from(tid).ok().filter(|&tid| tid <= i64::MAX as u64)
}

/// Writes a TID's 13 characters.
pub(crate) fn tid_text(tid: u64) -> [u8; TID_CHARS] {
    std::array::from_fn(|n| TID_ALPHABET[(tid >> (5 * (TID_CHARS - 1 - n))) as usize & 31])
}

/// Moves a TID by whole seconds, keeping its clock id.
pub(crate) fn tid_moved(tid: u64, seconds: i64) -> u64 {
    const SECOND: i64 = 1_000_000 << TID_CLOCK_BITS;
    tid.saturating_add_signed(seconds.saturating_mul(SECOND)).min(i64::MAX as u64)
}

/// Moves a TID to another time, in microseconds since 1970, keeping its clock id.
pub(crate) fn tid_at(tid: u64, micros: u64) -> u64 {
    const CLOCK: u64 = (1 << TID_CLOCK_BITS) - 1;
    (micros.min(i64::MAX as u64 >> TID_CLOCK_BITS) << TID_CLOCK_BITS) | (tid & CLOCK)
}

const SECOND_CHARS: usize = 19;
const MILLI_CHARS: usize = 23;
/// Times from 1970 to 2200 are moved; others are somebody's joke, and stay.
const MOVABLE: std::ops::Range<i64> = 0..7_258_118_400;

/// Reads the first 19 characters of a datetime, `2026-11-21T07:43:44`, whatever fraction and zone follow.
pub(crate) fn second_of_text(text: &[u8]) -> Option<i64> {
    let text = str::from_utf8(text.get(..SECOND_CHARS)?).ok().filter(|text| text.as_bytes()[10] == b'T')?;
    let second = Offset::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok()?.as_second();
    // Only what is written back the same may be rewritten: the parser takes other forms too.
    (MOVABLE.contains(&second) && second_text(second) == text.as_bytes()).then_some(second)
}

/// Reads the first 23 characters of a datetime, `2026-11-21T07:43:44.864`, whatever further digits and zone follow.
pub(crate) fn milli_of_text(text: &[u8]) -> Option<i64> {
    let second = second_of_text(text)?;
    let digits = text.get(SECOND_CHARS..MILLI_CHARS)?.strip_prefix(b".")?;
    let milli = digits
        .iter()
        .try_fold(0, |milli, digit| digit.is_ascii_digit().then(|| milli * 10 + i64::from(digit - b'0')))?;
    Some(second * 1000 + milli)
}

/// Writes the first 23 characters of a datetime.
pub(crate) fn milli_text(milli: i64) -> Vec<u8> {
    let mut text = second_text(milli.div_euclid(1000));
    text.extend_from_slice(format!(".{:03}", milli.rem_euclid(1000)).as_bytes());
    text
}

/// Writes the first 19 characters of a datetime.
pub(crate) fn second_text(second: i64) -> Vec<u8> {
    let second = second.clamp(MOVABLE.start, MOVABLE.end);
    let timestamp = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    Offset::UTC.to_datetime(timestamp).to_string().into_bytes()
}

/// How many characters of a DID a renaming may change at least.
const RENAMED_CHARS: usize = 8;

/// The place of a DID's characters that a renaming changes: all 24 of a `did:plc`, else the name without its last label.
fn renamed_part(did: &[u8]) -> std::ops::Range<usize> {
    let method = did.iter().skip(4).position(|&byte| byte == b':').map_or(did.len(), |colon| 4 + colon + 1);
    let end = did.iter().rposition(|&byte| byte == b'.').unwrap_or(did.len());
    method..end.max(method)
}

/// Whether a DID has enough characters to give each loop another one.
pub(crate) fn is_renamable(did: &[u8]) -> bool {
    did[renamed_part(did)].iter().filter(|byte| byte.is_ascii_alphanumeric()).count() >= RENAMED_CHARS
}

/// Gives a DID its name in a loop: as long as before, and nobody else's. The salt, one for each recording, keeps a recording
/// that was itself taken from a replay from meeting its own names again.
pub(crate) fn did_renamed(did: &[u8], round: u64, salt: u64) -> Vec<u8> {
    let mut name = did.to_vec();
    let hash =
        Sha256::new().chain_update(did).chain_update(round.to_be_bytes()).chain_update(salt.to_be_bytes()).finalize();
    let letters = BASE32_NOPAD.encode(&hash);
    let places = name[renamed_part(did)].iter_mut().filter(|byte| byte.is_ascii_alphanumeric());
    for (place, letter) in places.zip(letters.bytes()) {
        *place = letter.to_ascii_lowercase();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tids_move_by_whole_seconds_and_back() {
        let tid = tid_of_text(b"3n2sm4n4vwk22").unwrap();
        assert_eq!(&tid_text(tid), b"3n2sm4n4vwk22");
        assert_eq!(tid_moved(tid, 1) - tid, 1_000_000 << 10);
        assert_eq!(tid_moved(tid_moved(tid, 700), -700), tid);
        assert_eq!(tid_of_text(b"zzzzzzzzzzzzz"), None, "the top bit is 0");
        assert_eq!(tid_of_text(b"3n2sm4n4vwk2"), None);
        assert_eq!(tid_of_text(b"3n2sm4n4vwk20"), None);
    }

    #[test]
    fn datetimes_are_read_whatever_follows_the_seconds() {
        for text in ["2026-11-21T07:43:44.864Z", "2026-11-21T07:43:44", "2026-11-21T07:43:44+09:00"] {
            assert_eq!(second_of_text(text.as_bytes()), Some(1_795_247_024), "{text}");
        }
        assert_eq!(second_text(1_795_247_024), b"2026-11-21T07:43:44");
        for text in
            ["", "yesterday", "2026-11-21", "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "2026-11-21 07:43:44"]
        {
            assert_eq!(second_of_text(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn milliseconds_are_read_where_all_three_are_there() {
        for text in ["2026-11-21T07:43:44.864Z", "2026-11-21T07:43:44.864123+09:00"] {
            assert_eq!(milli_of_text(text.as_bytes()), Some(1_795_247_024_864), "{text}");
        }
        assert_eq!(milli_text(1_795_247_024_064), b"2026-11-21T07:43:44.064");
        for text in ["2026-11-21T07:43:44Z", "2026-11-21T07:43:44.86Z", "2026-11-21T07:43:44+09:00", "yesterday"] {
            assert_eq!(milli_of_text(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_tid_takes_another_time_and_keeps_its_clock_id() {
        let tid = tid_of_text(b"3n2sm4n4vwk22").unwrap();
        assert_eq!(tid_at(tid, tid >> 10), tid);
        assert_eq!(tid_at(tid, 7), (7 << 10) | (tid & 1023));
        assert!(tid_at(tid, u64::MAX) <= i64::MAX as u64, "the top bit is 0");
    }

    #[test]
    fn cids_are_read_only_in_their_own_spelling() {
        let text = b"bafyreie3lancgqot7me6jiughaqtcyufj3ft52mbl2trmmwre7ofaas6sm";
        assert_eq!(cid_text(&cid_of_text(text).unwrap()), text);
        assert_eq!(cid_of_text(&text.to_ascii_uppercase()), None);
        assert_eq!(cid_of_text(&text[..58]), None);
    }

    #[test]
    fn renamed_dids_keep_their_length_and_method() {
        let did = b"did:plc:c47os3qgjghgkayigu7ddcft";
        assert!(is_renamable(did));
        let (one, two) = (did_renamed(did, 1, 0), did_renamed(did, 2, 0));
        assert_ne!(one, two);
        assert_ne!(one, did_renamed(did, 1, 7));
        assert!(one.starts_with(b"did:plc:") && one.len() == did.len());
        assert!(one[8..].iter().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')));
        let web = did_renamed(b"did:web:some-long.example.com", 1, 0);
        assert!(web.starts_with(b"did:web:") && web.ends_with(b".com") && web[12] == b'-' && web[17] == b'.');
        assert!(!is_renamable(b"did:web:a.com"));
    }
}
