//! What a frame may become is known before it is decoded, and never less than what it becomes.

use ipld_core::ipld::Ipld;
use penstock_wire::{Frame, Limits, decode, most_data};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::crafted::{Commit, cid_of, encode};
use crate::fixtures;

/// No bound of the data, so that it shows what becomes of a frame.
fn unbounded() -> Limits {
    Limits { data: usize::MAX / 2, ..Limits::default() }
}

/// Returns what became of a frame and what was told of it, if anything became of it.
fn sizes(frame: &[u8]) -> Option<(usize, usize)> {
    match decode(frame, &unbounded()) {
        Ok(Frame::Event(event)) => Some((event.data.len(), most_data(frame, &unbounded()))),
        _ => None,
    }
}

fn assert_bounded(frame: &[u8], what: &str) {
    if let Some((became, told)) = sizes(frame) {
        assert!(became <= told, "{what}: {became} bytes of data, {told} were told");
    }
}

fn shared(block: &[u8], ops: usize) -> Vec<u8> {
    let mut commit = Commit::new().block(block.to_vec());
    for index in 0..ops {
        commit = commit.op("create", &format!("com.example.note/{index}"), Some(cid_of(block)));
    }
    commit.frame()
}

/// Records that are far shorter than their JSON, each in its way.
fn dense() -> Vec<(&'static str, Vec<u8>)> {
    let list = |item: Ipld| encode(&Ipld::Map([("x".to_owned(), Ipld::List(vec![item; 1_500]))].into()));
    let cid = cid_of(b"");
    vec![
        ("zeros", list(Ipld::Integer(0))),
        ("falsehoods", list(Ipld::Bool(false))),
        ("empty bytes", list(Ipld::Bytes(vec![]))),
        ("single bytes", list(Ipld::Bytes(vec![1]))),
        ("two bytes", list(Ipld::Bytes(vec![1, 2]))),
        ("letters", list(Ipld::String("@A".into()))),
        ("links", list(Ipld::Link(cid))),
        ("empty maps", list(Ipld::Map([].into()))),
        ("large numbers", list(Ipld::Integer(i128::from(i64::MIN)))),
        ("floats", list(Ipld::Float(-2.225_073_858_507_201e-308))),
        ("control characters", encode(&Ipld::Map([("x".to_owned(), Ipld::String("\u{1}".repeat(13_000)))].into()))),
        ("keys", encode(&Ipld::Map((0..1_500).map(|key| (format!("\u{1}{key}"), Ipld::Null)).collect()))),
    ]
}

#[test]
fn what_becomes_of_a_dense_record_was_told() {
    for (what, block) in dense() {
        for ops in [1, 2, 40] {
            let (became, told) = sizes(&shared(&block, ops)).unwrap();
            assert!(became <= told, "{what} in {ops} ops: {became} bytes of data, {told} were told");
        }
    }
}

#[test]
fn a_block_that_two_hundred_ops_share_is_told_two_hundred_times_and_never_over_the_limit() {
    let block = encode(&Ipld::Map([("text".to_owned(), Ipld::String("\u{1}".repeat(13_000)))].into()));
    let frame = shared(&block, 200);
    assert!(frame.len() < 40_000, "{}", frame.len());
    let (became, told) = sizes(&frame).unwrap();
    assert!(became > 15_500_000 && told < became * 3, "{became} {told}");
    assert!(most_data(&frame, &Limits::default()) <= 30_000_000);
}

#[test]
fn usual_frames_are_told_to_become_little() {
    for (set, frames) in fixtures::sets() {
        let (mut raw, mut told) = (0, 0);
        for (index, frame) in frames.iter().enumerate() {
            assert_bounded(frame, &format!("{set} {index}"));
            raw += frame.len();
            told += most_data(frame, &Limits::default());
        }
        assert!(told < raw * 6, "{set}: {told} of {raw} bytes");
    }
}

#[test]
fn damaged_frames_stay_within_what_was_told() {
    let mut random = StdRng::seed_from_u64(13);
    let mut frames = fixtures::frames(&fixtures::pds("frames.bin"));
    frames.truncate(100);
    frames.extend(dense().into_iter().take(3).map(|(_, block)| shared(&block[..block.len().min(300)], 3)));
    for frame in &frames {
        for _ in 0..10 {
            let mut damaged = frame.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..damaged.len());
                damaged[at] = random.random();
            }
            assert_bounded(&damaged, "damaged");
        }
    }
}
