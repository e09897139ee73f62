//! A host whose accounts send what nobody sends by mistake: far numbers, envelopes in another order, wrong clocks, and
//! records that are odd, hostile or huge, here and there among the recording's own.
//!
//! What becomes of a frame is decided by its number alone, so that it is the same however often it is asked for.

use ciborium::Value as Cbor;
use data_encoding::HEXLOWER;
use jiff::{Timestamp, ToSpan};
use sha2::{Digest, Sha256};

use super::history::APART;

/// How far above its place a far number lies: beyond all sequences of a history.
const ABOVE: u64 = 2_000_000_000;

/// Far numbers below all sequences: as many for each of them as one can have.
const BELOW: u64 = 10_000_000;

/// Records that nobody can carry: the op stays, and a letter says why.
pub(crate) const UNCARRIED: [&str; 3] = ["com.example.unsorted", "com.example.float32", "com.example.deep"];

/// Records whose block is not in the frame.
pub(crate) const MISSING: &str = "com.example.missing";

/// What an account may do to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odd {
    FarAbove,
    FarBelow,
    Reordered,
    ClockAhead,
    ClockBehind,
    /// One more op, of a record that is not in order.
    Unsorted,
    Float32,
    /// Nested so deep that no server would take it.
    Deep,
    Missing,
    /// Nested as deep as servers take.
    Nested,
    /// A record key of the greatest length.
    LongKey,
    /// A collection of the greatest length.
    LongCollection,
    /// Many ops that share one block, whose every byte is six in JSON.
    Huge,
    /// Many numbers, each far larger in memory than in text.
    Numbers,
}

/// One in so many commits is odd, and how often each kind is among those.
const ONE_IN: u64 = 12;
const KINDS: [(Odd, u64); 14] = [
    (Odd::FarAbove, 6),
    (Odd::FarBelow, 6),
    (Odd::Reordered, 8),
    (Odd::ClockAhead, 8),
    (Odd::ClockBehind, 8),
    (Odd::Unsorted, 6),
    (Odd::Float32, 6),
    (Odd::Deep, 4),
    (Odd::Missing, 6),
    (Odd::Nested, 6),
    (Odd::LongKey, 8),
    (Odd::LongCollection, 8),
    (Odd::Huge, 1),
    (Odd::Numbers, 2),
];

/// Makes some commits odd.
pub(crate) fn alter(seq: u64, frame: &[u8]) -> Option<Vec<u8>> {
    let digest: [u8; 32] = Sha256::digest(seq.to_be_bytes()).into();
    let draw = u64::from_be_bytes(digest[..8].try_into().unwrap());
    if !draw.is_multiple_of(ONE_IN) {
        return None;
    }
    let odd = pick(draw / ONE_IN);
    let mut rest = frame;
    let header: Cbor = ciborium::from_reader(&mut rest).unwrap();
    let mut body: Cbor = ciborium::from_reader(rest).unwrap();
    if get(&header, "t").as_text() != Some("#commit") {
        return None;
    }
    // A commit has 200 ops at most.
    if get(&body, "ops").as_array().unwrap().len() > 100 {
        return None;
    }
    let rkey = HEXLOWER.encode(&digest[8..16]);
    match odd {
        Odd::FarAbove => set(&mut body, "seq", Cbor::from(seq + ABOVE)),
        Odd::FarBelow => set(&mut body, "seq", Cbor::from(seq / APART * BELOW + seq % APART)),
        Odd::Reordered => {
            return Some([written(&reversed(header)), written(&reversed(body))].concat());
        }
        Odd::ClockAhead => shift(&mut body, 23),
        Odd::ClockBehind => shift(&mut body, -23),
        // Keys go by length first.
        Odd::Unsorted => add(&mut body, UNCARRIED[0], &rkey, b"\xa2\x62bb\x01\x61a\x01"),
        Odd::Float32 => add(&mut body, UNCARRIED[1], &rkey, b"\xa1\x61a\xfa\x3f\xc0\x00\x00"),
        Odd::Deep => add(&mut body, UNCARRIED[2], &rkey, &nested(300)),
        Odd::Missing => name(&mut body, MISSING, &rkey, &cid(b"\xa0")),
        Odd::Nested => add(&mut body, "com.example.nested", &rkey, &nested(100)),
        Odd::LongKey => {
            let rkey = format!("{rkey}{}", "k".repeat(512 - rkey.len()));
            add(&mut body, "com.example.long", &rkey, &record(Cbor::from(1)));
        }
        Odd::LongCollection => {
            let collection = format!("com.example.{}", "long.".repeat(60) + "name");
            add(&mut body, &collection, &rkey, &record(Cbor::from(2)));
        }
        Odd::Huge => {
            let block = record(Cbor::from("\u{1}".repeat(13_000)));
            put_block(&mut body, &block);
            for at in 0..40 {
                name(&mut body, "com.example.huge", &format!("{rkey}{at}"), &cid(&block));
            }
        }
        Odd::Numbers => {
            let numbers = Cbor::Array(vec![Cbor::from(0); 60_000]);
            add(&mut body, "com.example.numbers", &rkey, &record(numbers));
        }
    }
    Some([written(&header), written(&body)].concat())
}

/// The number that a frame had before it was made odd.
pub(crate) fn base(seq: u64) -> u64 {
    if seq >= ABOVE {
        seq - ABOVE
    } else if seq < APART {
        seq / BELOW * APART + seq % BELOW
    } else {
        seq
    }
}

fn pick(draw: u64) -> Odd {
    let kinds = || KINDS.iter().flat_map(|(odd, times)| (0..*times).map(|_| *odd));
    kinds().nth((draw % kinds().count() as u64) as usize).unwrap()
}

/// Adds an op that creates a record, and its block.
fn add(body: &mut Cbor, collection: &str, rkey: &str, block: &[u8]) {
    put_block(body, block);
    name(body, collection, rkey, &cid(block));
}

/// Adds an op that creates a record.
fn name(body: &mut Cbor, collection: &str, rkey: &str, cid: &[u8]) {
    let link = Cbor::Tag(42, Box::new(Cbor::Bytes([&[0], cid].concat())));
    let path = Cbor::from(format!("{collection}/{rkey}"));
    let fields = [("action", Cbor::from("create")), ("cid", link), ("path", path)];
    let op = fields.into_iter().map(|(key, value)| (Cbor::from(key), value)).collect();
    get_mut(body, "ops").as_array_mut().unwrap().push(Cbor::Map(op));
}

/// Appends a block to the frame's CAR.
fn put_block(body: &mut Cbor, block: &[u8]) {
    let car = get_mut(body, "blocks").as_bytes_mut().unwrap();
    let cid = cid(block);
    let mut length = cid.len() + block.len();
    while length >= 0x80 {
        car.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    car.push(length as u8);
    car.extend([&cid, block].concat());
}

/// The CID of a block of DAG-CBOR, hashed with SHA-256.
fn cid(block: &[u8]) -> Vec<u8> {
    [&[0x01, 0x71, 0x12, 0x20][..], &Sha256::digest(block)].concat()
}

fn record(value: Cbor) -> Vec<u8> {
    written(&Cbor::Map(vec![(Cbor::from("value"), value)]))
}

/// A record of so many maps, each within the other.
fn nested(levels: usize) -> Vec<u8> {
    [&b"\xa1\x61a".repeat(levels - 1)[..], b"\xa0"].concat()
}

fn reversed(map: Cbor) -> Cbor {
    let mut entries = map.into_map().unwrap();
    entries.reverse();
    Cbor::Map(entries)
}

fn shift(body: &mut Cbor, hours: i64) {
    let time: Timestamp = get(body, "time").as_text().unwrap().parse().unwrap();
    set(body, "time", Cbor::from((time + hours.hours()).to_string()));
}

fn written(value: &Cbor) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).unwrap();
    out
}

fn get<'a>(map: &'a Cbor, key: &str) -> &'a Cbor {
    map.as_map().unwrap().iter().find(|(name, _)| name.as_text() == Some(key)).map(|(_, value)| value).unwrap()
}

fn get_mut<'a>(map: &'a mut Cbor, key: &str) -> &'a mut Cbor {
    map.as_map_mut().unwrap().iter_mut().find(|(name, _)| name.as_text() == Some(key)).map(|(_, value)| value).unwrap()
}

fn set(map: &mut Cbor, key: &str, value: Cbor) {
    *get_mut(map, key) = value;
}

#[test]
fn numbers_go_back_to_where_they_were() {
    for seq in [900_000_000, 900_012_345, 100_000_001] {
        assert_eq!(base(seq + ABOVE), seq);
        assert_eq!(base(seq / APART * BELOW + seq % APART), seq);
        assert_eq!(base(seq), seq);
    }
}
