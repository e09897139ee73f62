//! What the frames of later loops are: distinct, whole, and the recording's in all that a loop does not change.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use penstock_replay::{BUNDLED, Error, Malformed, Recording, Settings, frames};

use crate::checker::{Event, Mapping, decode};

fn recorded(mut file: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = file.split_first_chunk() {
        let (frame, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        frames.push(frame);
        file = rest;
    }
    frames
}

fn looped(settings: &Settings, loops: usize, length: usize) -> Vec<Vec<Bytes>> {
    let settings = Settings { total: Some((loops * length) as u64), ..settings.clone() };
    let all: Vec<Bytes> = frames(&settings).unwrap().collect();
    assert_eq!(all.len(), loops * length);
    all.chunks(length).map(<[Bytes]>::to_vec).collect()
}

/// Proves of loops 1 and up that they are the recording, rewritten; returns the mappings.
fn prove(original: &[&[u8]], loops: &[Vec<Bytes>]) -> Vec<Mapping> {
    let before: Vec<Event> = original.iter().map(|frame| decode(frame)).collect();
    let old_dids: HashSet<String> = before.iter().map(Event::did).collect();
    let mut mappings = Vec::new();
    for rewritten in loops {
        let after: Vec<Event> = rewritten.iter().map(|frame| decode(frame)).collect();
        let mut mapping = Mapping::default();
        before.iter().zip(&after).for_each(|(before, after)| mapping.learn(before, after));
        before.iter().zip(&after).for_each(|(before, after)| mapping.check(before, after));
        let mut revs: HashMap<String, String> = HashMap::new();
        for (frame, event) in rewritten.iter().zip(&after) {
            for at in (0..frame.len()).filter(|&at| frame[at..].starts_with(b"did:")) {
                let left = |did: &String| frame[at..].starts_with(did.as_bytes());
                assert!(!old_dids.iter().any(left), "a recorded DID is left");
            }
            event.assert_whole();
            if let Some(rev) = event.rev() {
                let before = revs.insert(event.did(), rev.clone());
                assert!(before.is_none_or(|before| before <= rev), "revs go back");
            }
        }
        mappings.push(mapping);
    }
    mappings
}

#[test]
fn first_loop_is_the_recording_byte_for_byte() {
    let original = recorded(BUNDLED);
    let served: Vec<Bytes> = frames(&Settings { total: Some(583), ..Settings::default() }).unwrap().collect();
    assert_eq!(served.len(), original.len());
    assert!(served.iter().zip(&original).all(|(served, original)| served == original));
    original.iter().for_each(|frame| decode(frame).assert_whole());
}

#[test]
fn later_loops_are_the_recording_rewritten_consistently() {
    let original = recorded(BUNDLED);
    let loops = looped(&Settings::default(), 5, original.len());
    let mappings = prove(&original, &loops[1..]);

    let seconds: Vec<i128> = mappings.iter().map(Mapping::seconds).collect();
    assert_eq!(seconds, [8, 16, 24, 32], "the recording spans 6.2 s, begun at .864");
    let dids: HashSet<&String> = mappings.iter().flat_map(|mapping| mapping.dids.values()).collect();
    assert_eq!(dids.len(), 4 * 19, "each loop has repos of its own");
    let handles: HashSet<&String> = mappings.iter().flat_map(|mapping| mapping.handles.values()).collect();
    assert_eq!(handles.len(), 4 * mappings[0].handles.len());
}

#[test]
fn loops_follow_each_other_without_a_seam() {
    let original = recorded(BUNDLED);
    let mut seen = HashSet::new();
    let mut last: Option<(u64, String)> = None;
    for (n, frame) in looped(&Settings::default(), 30, original.len()).iter().flatten().enumerate() {
        assert!(seen.insert(frame.clone()), "frame {n} is not distinct");
        if n % 50 == 0 || n % 583 < 2 || n % 583 > 580 {
            let event = decode(frame);
            assert_eq!(event.seq(), n as u64 + 1);
            assert!(last.is_none_or(|(_, time)| time <= event.time()), "time goes back at frame {n}");
            last = Some((event.seq(), event.time()));
        }
    }
}

#[test]
fn frames_hang_on_settings_alone() {
    let settings = Settings { total: Some(2000), prepared: 0, ..Settings::default() };
    let other = Settings { total: Some(3000), backlog: 7, ..Settings::default() };
    assert!(frames(&settings).unwrap().eq(frames(&other).unwrap().take(2000)));
    assert_eq!(frames(&Settings::default()).unwrap().nth(10_000).map(|frame| decode(&frame).seq()), Some(10_001));
    assert_eq!(frames(&Settings { total: Some(0), ..Settings::default() }).unwrap().next(), None);
}

#[test]
fn start_seq_moves_the_seqs_of_every_loop_and_nothing_else() {
    let original = recorded(BUNDLED);
    // The first seqs of one width, the later ones of the next.
    let start = u64::from(u32::MAX) - 100;
    let moved = looped(&Settings { start_seq: Some(start), ..Settings::default() }, 2, original.len());
    let plain = looped(&Settings::default(), 2, original.len());
    for (n, (moved, plain)) in moved.iter().flatten().zip(plain.iter().flatten()).enumerate() {
        let (moved, plain) = (decode(moved), decode(plain));
        assert_eq!(moved.seq(), start + n as u64);
        let mut same = Mapping::default();
        same.learn(&plain, &moved);
        same.check(&plain, &moved);
        assert_eq!((moved.did(), moved.time()), (plain.did(), plain.time()));
        assert_eq!(moved.root, plain.root);
    }
}

#[test]
fn start_time_moves_all_times_and_keeps_the_accounts() {
    let original = recorded(BUNDLED);
    let start_time = Some("2030-01-01T00:00:00Z".parse().unwrap());
    let loops = looped(&Settings { start_time, ..Settings::default() }, 1, original.len());
    assert_eq!(decode(&loops[0][0]).time(), "2030-01-01T00:00:00.864Z");
    let before: Vec<Event> = original.iter().map(|frame| decode(frame)).collect();
    let mut mapping = Mapping::default();
    for (before, frame) in before.iter().zip(&loops[0]) {
        let after = decode(frame);
        after.assert_whole();
        assert_eq!(before.did(), after.did());
        mapping.learn(before, &after);
        mapping.check(before, &after);
    }
    assert_eq!(mapping.seconds(), 98_208_976);
}

fn with_file<T>(name: &str, file: &[u8], look: impl FnOnce(Settings) -> T) -> T {
    let path = std::env::temp_dir().join(format!("penstock-replay-{}-{name}", std::process::id()));
    std::fs::write(&path, file).unwrap();
    let seen = look(Settings { recording: Recording::File(path.clone()), ..Settings::default() });
    std::fs::remove_file(path).unwrap();
    seen
}

fn written<T: AsRef<[u8]>>(frames: &[T]) -> Vec<u8> {
    let written = frames.iter().map(AsRef::as_ref).map(|frame| [&(frame.len() as u32).to_le_bytes(), frame].concat());
    written.collect::<Vec<_>>().concat()
}

#[test]
fn recording_of_several_chunks_is_looped_as_one() {
    // Three loops of the small recording make a large one.
    let large: Vec<Bytes> = frames(&Settings { total: Some(3 * 583), ..Settings::default() }).unwrap().collect();
    let original: Vec<&[u8]> = large.iter().map(|frame| &frame[..]).collect();
    let loops = with_file("large", &written(&large), |settings| looped(&settings, 2, original.len()));
    assert!(loops[0] == large);
    let mapping = prove(&original, &loops[1..]).remove(0);
    assert_eq!(mapping.dids.len(), 3 * 19);
    assert_eq!(decode(&loops[1][0]).seq(), 3 * 583 + 1);
}

#[test]
fn damaged_recordings_are_refused_by_frame_and_reason() {
    let refused = |name: &str, file: &[u8]| with_file(name, file, |settings| frames(&settings).err());
    let original = recorded(BUNDLED);

    let mut flipped = original[2].to_vec();
    let signature = flipped.windows(4).position(|bytes| bytes == [0x63, b's', b'i', b'g']).unwrap() + 10;
    flipped[signature] ^= 1;
    let refusal = refused("flipped", &written(&[original[0], &flipped]));
    assert!(matches!(refusal, Some(Error::ParseFrame { frame: 1, source: Malformed::Hash { .. } })), "{refusal:?}");

    let refusal = refused("order", &written(&[original[1], original[0]]));
    assert!(
        matches!(refusal, Some(Error::ParseFrame { frame: 1, source: Malformed::SeqOrder { seq: 1 } })),
        "{refusal:?}"
    );

    let no_seq = b"\xa2at e#infobop\x01\xa0".iter().copied().filter(|byte| *byte != b' ').collect::<Vec<u8>>();
    let refusal = refused("info", &written(&[&no_seq]));
    assert!(matches!(refusal, Some(Error::ParseFrame { frame: 0, source: Malformed::NoSeq })), "{refusal:?}");

    for length in [0, 3, 50, 600] {
        assert!(refused("cut", &written(&original[..3])[..length]).is_some(), "cut at {length}");
    }
    let missing = Settings { recording: Recording::File(PathBuf::from("/nowhere")), ..Settings::default() };
    assert!(matches!(frames(&missing), Err(Error::ReadRecording { .. })));
}

/// Public frames of real people: looked at where they lie, and never printed.
#[test]
fn frames_of_the_public_network_can_be_looped_too() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/bsky-2026-07-04/frames.bin");
    let Ok(file) = std::fs::read(&path) else { return };
    let original = recorded(&file);
    let loops = looped(&Settings { recording: Recording::File(path), ..Settings::default() }, 3, original.len());
    assert!(loops[0].iter().zip(&original).all(|(served, original)| served == original));
    prove(&original, &loops[1..]);
}
