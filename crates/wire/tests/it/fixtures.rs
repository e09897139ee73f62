//! Where the recordings are. Those beside the checkout are used where they exist; the bundled one always does.

use std::fs;
use std::path::PathBuf;

/// Reads a file of the fixtures beside the checkout; none where there are no fixtures.
pub(crate) fn shared(name: &str) -> Option<Vec<u8>> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures").join(name)).ok()
}

/// Reads a file of the PDS recording: `frames.bin` or `oracle.jsonl`.
pub(crate) fn pds(name: &str) -> Vec<u8> {
    shared(&format!("pds/{name}")).unwrap_or_else(|| {
        let bundled = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../replay/recording").join(format!("pds.{name}"));
        fs::read(bundled).unwrap()
    })
}

/// Returns every set of frames at hand, with its name.
pub(crate) fn sets() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut sets = vec![("pds", frames(&pds("frames.bin")))];
    sets.extend(shared("bsky-2026-07-04/frames.bin").map(|bytes| ("bsky", frames(&bytes))));
    let edge: Vec<_> = EDGE.iter().filter_map(|name| shared(&format!("edge/{name}"))).collect();
    if !edge.is_empty() {
        sets.push(("edge", edge));
    }
    sets
}

/// The files of the edge set.
pub(crate) const EDGE: [&str; 3] = [
    "error_FutureCursor_indigo1231.bin",
    "hydrant_account_2026-02-24.bin",
    "hydrant_commit_initial_empty_ops_since_empty_2026-03-05.bin",
];

/// Splits a recording: each message has its length before it, as a little-endian u32.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (frame, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        frames.push(frame.to_vec());
        bytes = rest;
    }
    frames
}
