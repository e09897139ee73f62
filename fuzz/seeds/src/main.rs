//! Writes the corpus with which fuzzing begins: `penstock-fuzz-seeds CORPUS`, a folder for each target in it.
//!
//! Frames come from the recording in the project and from recordings beside the checkout, where there are any. The corpus
//! is never part of the project: some of those are of real people.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// Entries in each dialect, odd ones included: type, seq, origId, data.
const ENTRIES: &str = include_str!("entries.txt");

/// Settings in each of the target's ways.
const SETTINGS: &str = include_str!("settings.txt");

/// What stands between two inputs of a list.
const END: &str = "\n====\n";

/// DAG-CBOR where a record is to be: each major type, each oddity.
const RECORDS: [&[u8]; 8] = [
    b"\xA0",
    b"\xA2\x61a\x01\x62bb\x20",
    b"\xA1\x61a\xFB\x3F\xF8\0\0\0\0\0\0",
    b"\xA1\x61a\x83\xF4\xF5\xF6",
    b"\xA1\x61a\xD8\x2A\x58\x25\0\x01\x55\x12\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\xA1\x61a\xA1\x61b\xA1\x61c\x81\x80",
    b"\xA1\x65$type\x70com.example.note",
    b"\xA2\x61a\x1B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x61b\x3B\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
];

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: penstock-fuzz-seeds CORPUS")?);
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let beside = project.join("../shared/fixtures");

    let mut frames = Vec::new();
    for recording in [project.join("crates/replay/recording/pds.frames.bin"), beside.join("bsky-2026-07-04/frames.bin")]
    {
        if let Ok(bytes) = fs::read(recording) {
            split(&bytes, &mut frames);
        }
    }
    if let Ok(edge) = fs::read_dir(beside.join("edge")) {
        for file in edge {
            frames.push(fs::read(file?.path())?);
        }
    }
    write(&corpus, "frame", frames.iter().map(Vec::as_slice))?;

    // Bit 0 of the first byte: the rest is the CAR itself.
    let mut cars: Vec<Vec<u8>> = frames.iter().filter_map(|frame| car(frame)).map(|car| [&[1], car].concat()).collect();
    cars.push(vec![3]);
    for flags in [0, 4, 8, 16] {
        cars.push([&[flags], records(&RECORDS).as_slice()].concat());
    }
    write(&corpus, "car", cars.iter().map(Vec::as_slice))?;

    write(&corpus, "entry", ENTRIES.split(END).map(|text| text.trim_end_matches('\n').as_bytes()))?;
    write(&corpus, "settings", SETTINGS.split(END).map(|text| text.trim_end_matches('\n').as_bytes()))
}

/// Splits a recording: each frame has its length before it, as a little-endian u32.
fn split(mut bytes: &[u8], frames: &mut Vec<Vec<u8>>) {
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let Some((frame, rest)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize) else { return };
        frames.push(frame.to_vec());
        bytes = rest;
    }
}

/// Finds the frame's `blocks`: the key, then bytes with a length of two or four bytes.
fn car(frame: &[u8]) -> Option<&[u8]> {
    let key = b"\x66blocks";
    let at = frame.windows(key.len()).position(|window| window == key)? + key.len();
    let (len, rest) = match frame.get(at..)? {
        [0x59, a, b, rest @ ..] => (usize::from(*a) << 8 | usize::from(*b), rest),
        [0x5A, a, b, c, d, rest @ ..] => (u32::from_be_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return None,
    };
    rest.get(..len)
}

/// Puts each record's length before it.
fn records(records: &[&[u8]]) -> Vec<u8> {
    records.iter().flat_map(|record| [&[record.len() as u8], *record].concat()).collect()
}

/// Writes one target's inputs, by number: to write them again changes nothing.
fn write<'a>(corpus: &Path, target: &str, inputs: impl Iterator<Item = &'a [u8]>) -> Result<(), Box<dyn Error>> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    let mut count = 0;
    for input in inputs {
        fs::write(folder.join(format!("seed-{count:04}")), input)?;
        count += 1;
    }
    println!("{target}: {count} seeds");
    Ok(())
}
