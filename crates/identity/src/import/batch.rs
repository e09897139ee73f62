//! What a chunk of the export says: of each account its latest operation.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::input::Chunk;
use super::resume::Mark;
use crate::export::{BadLine, Operation, read_line};

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: BadLine,
}

/// Bad lines that are kept.
const KEPT: usize = 20;

/// What is to be written, and where that leaves the export.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// An account each, in the order of their DIDs.
    pub(super) rows: Vec<Operation>,
    pub(super) operations: u64,
    pub(super) nullified: u64,
    /// The first bad lines.
    pub(super) bad: Vec<Bad>,
    pub(super) bad_lines: u64,
    /// Lines read up to the end of this one.
    pub(super) lines: u64,
    /// Bytes read up to the end of this one.
    pub(super) read: u64,
    /// The same before unpacking, and as far as the source was read ahead.
    pub(super) taken: u64,
    /// The export's name, and the place to note; none where it stays.
    pub(super) mark: Option<(String, Mark)>,
}

// === impl Batch ===

impl Batch {
    /// Reads a chunk before which there were so many lines.
    pub(super) fn of(chunk: &Chunk, lines: u64, first: Option<&str>) -> Self {
        let open = if chunk.open { chunk.bytes.len() as u64 } else { 0 };
        let mut batch = Self { lines, read: chunk.end + open, taken: chunk.taken, ..Self::default() };
        let mut latest: HashMap<Box<str>, Operation> = HashMap::new();
        for line in chunk.bytes.split_inclusive(|&byte| byte == b'\n') {
            batch.lines += 1;
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let (operations, nullified) = (&mut batch.operations, &mut batch.nullified);
            let read = read_line(line, |operation| {
                *operations += 1;
                match operation {
                    Some(operation) => take(&mut latest, operation),
                    None => *nullified += 1,
                }
            });
            if let Err(why) = read {
                batch.bad_lines += 1;
                if batch.bad.len() < KEPT {
                    batch.bad.push(Bad { line: batch.lines, why });
                }
            }
        }
        batch.rows = latest.into_values().collect();
        // Two that write the same rows in the same order never wait for each other in a circle.
        batch.rows.sort_unstable_by(|a, b| a.did.cmp(&b.did));
        if chunk.last > 0
            && let Some(first) = first
        {
            let mark =
                Mark { offset: chunk.end, lines: batch.lines, length: chunk.last, line: chunk.last_name.clone() };
            batch.mark = Some((first.to_owned(), mark));
        }
        batch
    }
}

/// Keeps the later of two operations of an account; of two at one time the one further down.
fn take(latest: &mut HashMap<Box<str>, Operation>, operation: Operation) {
    match latest.entry(operation.did.clone()) {
        Entry::Occupied(mut known) if known.get().at <= operation.at => {
            known.insert(operation);
        }
        Entry::Occupied(_) => {}
        Entry::Vacant(none) => {
            none.insert(operation);
        }
    }
}
