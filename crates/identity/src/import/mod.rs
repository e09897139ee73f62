//! Seeds the table with an export of the directory: a file or a stream comes in, rows of `penstock.identities` go out.
//!
//! One thread reads and understands the lines, a chunk at a time, while the chunk before is being written. Each chunk is one
//! transaction, which also notes up to where the export was read: what ends in between goes on from there. Of an account the latest
//! operation counts, in whatever order they come, and never before a document that was fetched after it.

mod batch;
mod error;
mod input;
mod resume;
mod write;

use penstock_postgres::Pool;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

pub use batch::Bad;
use batch::Batch;
pub use error::ImportError;
use input::Input;
pub use input::Source;

/// How an import stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of the export that were read, after unpacking; those that an earlier import had read are passed over.
    pub bytes: u64,
    /// Bytes that were taken from the file for that, before unpacking.
    pub taken: u64,
    /// Lines that were read.
    pub lines: u64,
    /// Operations in them.
    pub operations: u64,
    /// Of these, those that a later one had made void.
    pub nullified: u64,
    /// Rows of accounts that were written, an account each time.
    pub written: u64,
    /// Lines that could not be read.
    pub bad: u64,
}

/// What an import tells while it goes on.
#[derive(Debug)]
pub enum Told<'a> {
    /// An earlier import had come so far, and this one goes on from there.
    Resumed {
        /// How many bytes it had read.
        bytes: u64,
        /// How many lines.
        lines: u64,
    },
    /// A line that cannot be read; of the first few alone.
    Bad(&'a Bad),
    /// A chunk was written.
    Came(&'a Totals),
}

/// Chunks that are understood and wait to be written.
const AHEAD: usize = 2;
/// Bad lines that are told of.
const TOLD: u64 = 20;
/// Bad lines without a good one after which the file is taken for another.
const HOPELESS: u64 = 1000;

/// Imports an export. `from_start` begins at its first line, whatever an earlier import had read.
///
/// # Errors
/// The export cannot be read or is none, or the database does not take it. What was written until then stays, and the next import goes on
/// from there.
pub async fn import(
    pool: &Pool,
    source: Source,
    from_start: bool,
    tell: &(dyn Fn(Told<'_>) + Sync),
) -> Result<Totals, ImportError> {
    let mut input = open(source.clone()).await?;
    let mut totals = Totals::default();
    let mark = match (from_start, input.first()) {
        (false, Some(first)) => write::mark(pool, first).await?,
        _ => None,
    };
    if let Some(mark) = mark {
        let (offset, lines) = (mark.offset, mark.lines);
        let (passed, same) = spawn_blocking(move || input.pass(&mark).map(|same| (input, same)))
            .await
            .map_err(ImportError::Thread)??;
        input = match source {
            _ if same => passed,
            Source::File(_) => open(source).await?,
            Source::Stdin => return Err(ImportError::OtherStream { offset }),
        };
        if same {
            tell(Told::Resumed { bytes: offset, lines });
            (totals.bytes, totals.lines) = (offset, lines);
        }
    }
    let (batches, mut coming) = mpsc::channel::<Batch>(AHEAD);
    let lines = totals.lines;
    let reading = spawn_blocking(move || read(input, lines, &batches));
    while let Some(mut batch) = coming.recv().await {
        for bad in batch.bad.iter().take(usize::try_from(TOLD.saturating_sub(totals.bad)).unwrap_or_default()) {
            tell(Told::Bad(bad));
        }
        totals.bad += batch.bad_lines;
        totals.operations += batch.operations;
        totals.nullified += batch.nullified;
        if totals.operations == 0 && totals.bad >= HOPELESS {
            return Err(ImportError::NoExport { lines: totals.bad });
        }
        if totals.operations == 0 {
            // Nothing yet says that this is an export at all.
            batch.mark = None;
        }
        totals.written += write::write(pool, &batch).await?;
        (totals.bytes, totals.taken, totals.lines) = (batch.read, batch.taken, batch.lines);
        tell(Told::Came(&totals));
    }
    reading.await.map_err(ImportError::Thread)??;
    if totals.operations == 0 && totals.bad > 0 && totals.bad == totals.lines {
        return Err(ImportError::NoExport { lines: totals.bad });
    }
    Ok(totals)
}

async fn open(source: Source) -> Result<Input, ImportError> {
    spawn_blocking(move || Input::open(source)).await.map_err(ImportError::Thread)?
}

/// Reads chunks until the export ends or nobody wants them any more.
fn read(mut input: Input, mut lines: u64, batches: &mpsc::Sender<Batch>) -> Result<(), ImportError> {
    while let Some(chunk) = input.next()? {
        let batch = Batch::of(&chunk, lines, input.first());
        lines = batch.lines;
        if batches.blocking_send(batch).is_err() {
            break;
        }
    }
    Ok(())
}
