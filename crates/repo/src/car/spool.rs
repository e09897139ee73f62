//! Bytes that are written once and read anywhere: in memory, and from a bound on in a file that has no name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much lies together in memory, and is written to a file at once.
const CHUNK: usize = 256 * 1024;

/// Names that are tried for a file before it has none.
const NAMES: u32 = 16;

/// Memory that all repos share while they are read.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    taken: AtomicU64,
    folder: PathBuf,
}

/// Bytes, written one behind the other.
#[derive(Debug)]
pub(crate) struct Spool {
    budget: Arc<Budget>,
    len: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Every chunk but the last is full.
    Memory(Vec<Vec<u8>>),
    /// What is not written yet is behind what is.
    File { file: File, rest: Vec<u8> },
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(limit: u64, folder: PathBuf) -> Self {
        Self { limit, taken: AtomicU64::new(0), folder }
    }

    /// Returns the folder of the files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn take(&self, bytes: u64) -> bool {
        let took = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(bytes).filter(|taken| *taken <= self.limit)
        });
        took.is_ok()
    }

    fn give(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// === impl Spool ===

impl Spool {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, len: 0, place: Place::Memory(Vec::new()) }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Says whether it lies in a file.
    #[cfg(test)]
    pub(crate) fn is_on_disk(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }

    /// Writes bytes behind the others.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let added = bytes.len() as u64;
        if let Place::Memory(chunks) = &mut self.place {
            if self.budget.take(added) {
                self.len += added;
                while !bytes.is_empty() {
                    let room = match chunks.last_mut() {
                        Some(last) if last.len() < CHUNK => last,
                        _ => {
                            // Where there is one already more are to come: they are not grown step by step.
                            let first = if chunks.is_empty() { bytes.len().min(CHUNK) } else { CHUNK };
                            chunks.push(Vec::with_capacity(first));
                            continue;
                        }
                    };
                    let (now, later) = bytes.split_at(bytes.len().min(CHUNK - room.len()));
                    room.extend_from_slice(now);
                    bytes = later;
                }
                return Ok(());
            }
            let mut file = nameless(&self.budget.folder)?;
            for chunk in std::mem::take(chunks) {
                file.write_all(&chunk)?;
            }
            self.budget.give(self.len);
            self.place = Place::File { file, rest: Vec::with_capacity(CHUNK) };
        }
        if let Place::File { file, rest } = &mut self.place {
            rest.extend_from_slice(bytes);
            if rest.len() >= CHUNK {
                file.write_all(rest)?;
                rest.clear();
            }
            self.len += added;
        }
        Ok(())
    }

    /// Writes what is not written yet: nothing is appended any more.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if let Place::File { file, rest } = &mut self.place {
            file.write_all(rest)?;
            *rest = Vec::new();
        }
        Ok(())
    }

    /// Reads bytes from a place on into `out`, which they replace. Only what was [finished](Self::finish) is read.
    pub(crate) fn read(&self, at: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        if at.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.place {
            Place::Memory(chunks) => {
                let mut at = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
                while out.len() < len {
                    let chunk = chunks.get(at / CHUNK).and_then(|chunk| chunk.get(at % CHUNK..)).unwrap_or_default();
                    let part = chunk.get(..chunk.len().min(len - out.len())).unwrap_or_default();
                    if part.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    out.extend_from_slice(part);
                    at += part.len();
                }
                Ok(())
            }
            Place::File { file, .. } => {
                out.resize(len, 0);
                file.read_exact_at(out, at)
            }
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Place::Memory(_) = self.place {
            self.budget.give(self.len);
        }
    }
}

/// Opens a file that nobody else can open: its name is taken away at once, so that it is gone with the process, however that ends.
fn nameless(folder: &Path) -> io::Result<File> {
    let mut failed = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..NAMES {
        let name = format!("penstock-{}-{:016x}", std::process::id(), unlikely());
        let path = folder.join(name);
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => failed = error,
            Err(error) => return Err(error),
        }
    }
    Err(failed)
}

/// A number that no other file has.
fn unlikely() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop};
    use proptest::{prop_assert_eq, proptest};

    use super::*;

    fn budget(limit: u64) -> Arc<Budget> {
        Arc::new(Budget::new(limit, std::env::temp_dir()))
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_from_memory_and_from_a_file(
            pieces in prop::collection::vec(0_usize..150_000, 0..20),
            limit in 0_u64..2_000_000,
            places in prop::collection::vec((any::<u64>(), 0_usize..200_000), 20),
        ) {
            let budget = budget(limit);
            let mut spool = Spool::new(Arc::clone(&budget));
            let mut all = Vec::new();
            for (index, len) in pieces.iter().enumerate() {
                let piece: Vec<u8> = (0..*len).map(|at| (at * 7 + index * 31) as u8).collect();
                spool.append(&piece).unwrap();
                all.extend_from_slice(&piece);
            }
            spool.finish().unwrap();
            prop_assert_eq!(spool.len(), all.len() as u64);
            prop_assert_eq!(spool.is_on_disk(), all.len() as u64 > limit);
            let mut out = Vec::new();
            for (at, len) in places {
                let at = usize::try_from(at % (all.len() as u64 + 1)).unwrap();
                match all.get(at..at + len) {
                    Some(part) => {
                        spool.read(at as u64, len, &mut out).unwrap();
                        prop_assert_eq!(&out, part);
                    }
                    None => prop_assert_eq!(
                        spool.read(at as u64, len, &mut out).unwrap_err().kind(),
                        io::ErrorKind::UnexpectedEof
                    ),
                }
            }
            drop(spool);
            prop_assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_file_has_no_name() {
        let folder = std::env::temp_dir().join(format!("penstock-nameless-{:016x}", unlikely()));
        fs::create_dir(&folder).unwrap();
        let mut spool = Spool::new(Arc::new(Budget::new(0, folder.clone())));
        spool.append(b"something").unwrap();
        spool.finish().unwrap();
        assert!(spool.is_on_disk());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir(&folder).unwrap();
        let mut lost = Spool::new(Arc::new(Budget::new(0, folder)));
        assert_eq!(lost.append(b"something").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
