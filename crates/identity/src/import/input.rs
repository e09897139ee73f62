//! Where an export comes from, in chunks of whole lines.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, stdin};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

use super::error::ImportError;
use super::resume::{Mark, name};
use crate::export::LONGEST_LINE;

/// A chunk has about so many bytes: some thousand operations.
const CHUNK: usize = 4 << 20;
/// The beginning of what gzip packed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Where an export comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// An export that is being read.
pub(super) struct Input {
    /// The file itself, where a place in it can be gone to.
    file: Option<File>,
    stream: Box<dyn Read + Send>,
    /// What was read and not handed out.
    held: Vec<u8>,
    /// Bytes before what is held.
    offset: u64,
    ended: bool,
    /// The name of the first line, if there is a whole one.
    first: Option<String>,
    /// Bytes taken from the source so far, before unpacking.
    taken: Arc<AtomicU64>,
}

/// Whole lines, and a place behind them.
pub(super) struct Chunk {
    /// The lines; the last may lack its line break at the export's end, and a line that is too long is cut.
    pub(super) bytes: Vec<u8>,
    /// The place behind the last line that has a line break, apart from what is counted while the lines are read.
    pub(super) end: u64,
    /// The length of that line, its break included.
    pub(super) last: u64,
    /// The name of that line.
    pub(super) last_name: String,
    /// Whether the last line lacks its break.
    pub(super) open: bool,
    /// Bytes taken from the source so far, before unpacking.
    pub(super) taken: u64,
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

// === impl Input ===

impl Input {
    /// Opens a source and reads its beginning.
    ///
    /// # Errors
    /// It cannot be opened or read.
    pub(super) fn open(source: Source) -> Result<Self, ImportError> {
        match source {
            Source::Stdin => Self::of(Box::new(stdin()), None),
            Source::File(path) => {
                let opened = |source| ImportError::Open { path: path.clone(), source };
                let file = File::open(&path).map_err(opened)?;
                let again = file.try_clone().map_err(opened)?;
                // A pipe or a device has no places to go to.
                let seeks = file.metadata().map_err(opened)?.is_file();
                Self::of(Box::new(file), seeks.then_some(again))
            }
        }
    }

    fn of(source: Box<dyn Read + Send>, file: Option<File>) -> Result<Self, ImportError> {
        let taken = Arc::<AtomicU64>::default();
        let mut counted = Counted { inner: source, taken: Arc::clone(&taken) };
        let mut beginning = Vec::new();
        let read = |error| ImportError::Read { at: 0, source: error };
        counted.by_ref().take(GZIP.len() as u64).read_to_end(&mut beginning).map_err(read)?;
        let packed = beginning == GZIP;
        let whole = io::Cursor::new(beginning).chain(counted);
        let (stream, file): (Box<dyn Read + Send>, _) = if packed {
            (Box::new(MultiGzDecoder::new(io::BufReader::new(whole))), None)
        } else {
            (Box::new(whole), file)
        };
        let mut input = Self { file, stream, held: Vec::new(), offset: 0, ended: false, first: None, taken };
        input.fill()?;
        input.first = input.held.iter().position(|&byte| byte == b'\n').map(|end| name(&input.held[..=end]));
        Ok(input)
    }

    /// The name of the export: that of its first line. None where it has no whole line within a chunk.
    pub(super) fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// Passes over what an earlier import had read. Returns false where it is not the same up to there; then it
    /// is to be opened again.
    pub(super) fn pass(&mut self, mark: &Mark) -> Result<bool, ImportError> {
        let Some(before) = mark.offset.checked_sub(mark.length).filter(|_| mark.length <= CHUNK as u64) else {
            return Ok(false);
        };
        if let Some(file) = &mut self.file {
            let at = |source| ImportError::Read { at: before, source };
            file.seek(SeekFrom::Start(before)).map_err(at)?;
            let mut line = Vec::new();
            file.by_ref().take(mark.length).read_to_end(&mut line).map_err(at)?;
            let same = name(&line) == mark.line;
            // The stream reads the same open file, and so from where this leaves it.
            file.seek(SeekFrom::Start(mark.offset)).map_err(at)?;
            self.held.clear();
            (self.offset, self.ended) = (mark.offset, false);
            self.taken.store(mark.offset, Ordering::Relaxed);
            return Ok(same);
        }
        let mut line = Vec::new();
        while self.offset < mark.offset {
            self.fill()?;
            let from = usize::try_from(before.saturating_sub(self.offset)).unwrap_or(usize::MAX).min(self.held.len());
            let to = usize::try_from(mark.offset - self.offset).unwrap_or(usize::MAX).min(self.held.len());
            line.extend_from_slice(&self.held[from..to]);
            if self.held.is_empty() {
                break;
            }
            self.offset += to as u64;
            self.held.drain(..to);
        }
        Ok(name(&line) == mark.line)
    }

    /// Reads until a chunk is held, or the source ends.
    fn fill(&mut self) -> Result<(), ImportError> {
        let missing = CHUNK.saturating_sub(self.held.len());
        if missing > 0 && !self.ended {
            let at = self.offset + self.held.len() as u64;
            let read = self.stream.by_ref().take(missing as u64).read_to_end(&mut self.held);
            self.ended = read.map_err(|source| ImportError::Read { at, source })? < missing;
        }
        Ok(())
    }

    /// The next lines; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Chunk>, ImportError> {
        self.fill()?;
        if self.held.is_empty() {
            return Ok(None);
        }
        if let Some(last) = self.held.iter().rposition(|&byte| byte == b'\n') {
            let rest = self.held.split_off(last + 1);
            let bytes = std::mem::replace(&mut self.held, rest);
            let start = bytes[..last].iter().rposition(|&byte| byte == b'\n').map_or(0, |before| before + 1);
            self.offset += bytes.len() as u64;
            let (last, last_name) = ((bytes.len() - start) as u64, name(&bytes[start..]));
            return Ok(Some(self.chunk(bytes, last, last_name, false)));
        }
        if self.ended {
            // A line that may go on one day: it counts, but the next import reads it again.
            let bytes = std::mem::take(&mut self.held);
            return Ok(Some(self.chunk(bytes, 0, String::new(), true)));
        }
        self.drop_line()
    }

    fn chunk(&self, bytes: Vec<u8>, last: u64, last_name: String, open: bool) -> Chunk {
        Chunk { bytes, end: self.offset, last, last_name, open, taken: self.taken.load(Ordering::Relaxed) }
    }

    /// Passes over a line that is longer than a chunk.
    fn drop_line(&mut self) -> Result<Option<Chunk>, ImportError> {
        let mut bytes = self.held[..=LONGEST_LINE].to_vec();
        loop {
            if let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
                self.held.drain(..=end);
                self.offset += end as u64 + 1;
                bytes.push(b'\n');
                // Too long to be known again: the mark before it stays.
                return Ok(Some(self.chunk(bytes, 0, String::new(), false)));
            }
            self.offset += self.held.len() as u64;
            self.held.clear();
            if self.ended {
                return Ok(Some(self.chunk(bytes, 0, String::new(), true)));
            }
            self.fill()?;
        }
    }
}
