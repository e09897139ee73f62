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

/// DID documents.
const DOCUMENTS: &str = include_str!("documents.txt");

/// Lines of the directory's export.
const EXPORTS: &str = include_str!("exports.txt");

/// What stands between two inputs of a list.
const END: &str = "\n====\n";

/// DAG-CBOR where a record is to be: each major type, each oddity.
const RECORDS: [&[u8]; 13] = [
    b"\xA0",
    b"\xA2\x61a\x01\x62bb\x20",
    b"\xA1\x61a\xFB\x3F\xF8\0\0\0\0\0\0",
    b"\xA1\x61a\x83\xF4\xF5\xF6",
    b"\xA1\x61a\xD8\x2A\x58\x25\0\x01\x55\x12\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\xA1\x61a\xA1\x61b\xA1\x61c\x81\x80",
    b"\xA1\x65$type\x70com.example.note",
    b"\xA2\x61b\x01\x61a\x02",
    b"\xA1\x61a\xFA\x3F\x80\0\0",
    b"\xA1\x61a\xF7",
    b"\xA1\x61a\x3B\x80\0\0\0\0\0\0\0",
    b"\xA1\x61a\x61\xFF",
    b"\xA2\x61a\x1B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x61b\x3B\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
];

/// Frames whose envelope is not canonical: keys in another order, lengths not known before or longer than they need be.
const LOOSE: [&[u8]; 3] = [
    b"\xA2\x62op\x01\x61t\x68#account\xA3\x66active\xF5\x63did\x69did:plc:a\x63seq\x07",
    b"\xBF\x62op\x18\x01\x61t\x68#account\xFF\xBF\x63seq\x1A\0\0\0\x07\x66active\xF4\x63did\x69did:plc:a\xFF",
    b"\xA2\x61t\x69#identity\x62op\x01\xA4\x67novelty\x9F\x81\x80\xFF\x64time\x05\x63seq\x07\x63did\x69did:plc:a",
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
    let loose = LOOSE.iter().copied();
    write(&corpus, "frame", frames.iter().map(Vec::as_slice).chain(loose))?;

    // Bit 0 of the first byte: the rest is the CAR itself.
    let mut cars: Vec<Vec<u8>> = frames.iter().filter_map(|frame| car(frame)).map(|car| [&[1], car].concat()).collect();
    cars.push(vec![3]);
    // As deep as the usual reader goes, and deeper.
    let deep = |levels| [&b"\xA1\x61a"[..], &vec![0x81; levels], &[0]].concat();
    let (deep, deeper, deepest) = (deep(120), deep(200), deep(260));
    let odd = [&RECORDS[..], &[&deep, &deeper, &deepest]].concat();
    for flags in [0, 4, 8, 16] {
        cars.push([&[flags], records(&odd).as_slice()].concat());
    }
    write(&corpus, "car", cars.iter().map(Vec::as_slice))?;

    // Keys: what each has before the commit and after it (bits 0 to 2), and its name.
    let states = |of: fn(u8) -> u8, count: u8| (0..count).flat_map(|n| [3, of(n), n, n / 3]).collect::<Vec<u8>>();
    let mut proofs: Vec<Vec<u8>> = Vec::new();
    for flags in [0, 2, 4, 8, 0x12, 0x34] {
        proofs.extend(
            [states(|_| 2, 20), states(|_| 1, 20), states(|n| n % 8, 100)].map(|keys| [&[flags], &keys[..]].concat()),
        );
    }
    // Bit 0: nodes.
    let leaf = b"\xA2\x61e\x80\x61l\xF6";
    proofs.push([&[0x31, 7][..], leaf].concat());
    write(&corpus, "proof", proofs.iter().map(Vec::as_slice))?;
    // A CAR itself; nodes; sound trees, whole and with a bit changed.
    let mut repos: Vec<Vec<u8>> = frames.iter().filter_map(|frame| car(frame)).map(|car| [&[0], car].concat()).collect();
    let keys: Vec<u8> = (0..120).collect();
    repos.push([&[1, 2, 0, 1, 1, 0, 2, 2, 0, 1, 1, 3, 3, 0][..], &keys].concat());
    repos.push([&[2, 0, 0, 0][..], &keys].concat());
    repos.push([&[6, 1, 7, 3][..], &keys].concat());
    write(&corpus, "repo", repos.iter().map(Vec::as_slice))?;

    write(&corpus, "entry", ENTRIES.split(END).map(|text| text.trim_end_matches('\n').as_bytes()))?;
    write(&corpus, "export", EXPORTS.split(END).map(|text| text.trim_end_matches('\n').as_bytes()))?;
    write(&corpus, "document", DOCUMENTS.split(END).map(|text| text.trim_end_matches('\n').as_bytes()))?;
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
    let len = |len: usize| if len < 251 { vec![len as u8] } else { vec![251 + (len >> 8) as u8, len as u8] };
    records.iter().flat_map(|record| [&len(record.len())[..], record].concat()).collect()
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
