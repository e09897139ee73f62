//! Entries gathered into what one transaction applies.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use penstock_core::entry::{Entry, EntryError, Event, RawEntry};
use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};

use crate::consumer::Delivery;
use crate::read::{Decoded, Decoding};
use crate::state::work::Work;

/// What one transaction applies.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The entries.
    pub(crate) entries: Vec<Entry>,
    /// How each of them was delivered.
    pub(crate) origins: Vec<Delivery>,
    /// What could not be decoded.
    pub(crate) unreadable: Vec<(Delivery, EntryError)>,
    ops: usize,
    bytes: usize,
}

/// The limits of a batch; one entry may exceed them.
#[derive(Clone, Copy, Debug)]
struct Most {
    entries: usize,
    ops: usize,
    bytes: usize,
}

// === impl Batch ===

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.unreadable.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, decoded: Decoded) {
        let Decoded { delivery, entry } = decoded;
        self.bytes += delivery.held();
        match entry {
            Ok(entry) => {
                self.ops += ops(&entry);
                self.entries.push(entry);
                self.origins.push(delivery);
            }
            Err(error) => self.unreadable.push((delivery, error)),
        }
    }

    fn is_full(&self, most: Most) -> bool {
        self.len() >= most.entries || self.ops >= most.ops || self.bytes >= most.bytes
    }
}

/// Gathers entries into batches until there are no more, and hands each on once it is full or its first entry waited
/// for long enough. While every writer is busy, a batch that is due goes on growing.
///
/// # Errors
/// Decoding panicked.
pub(crate) async fn gather(
    work: Arc<Work>,
    mut entries: UnboundedReceiver<Decoding>,
    batches: Sender<Batch>,
) -> Result<(), JoinError> {
    let worker = &work.settings.worker;
    let most = Most { entries: work.batch_size, ops: worker.batch_ops, bytes: worker.batch_bytes };
    let delay: Duration = work.settings.worker.batch_delay;
    let mut ready = VecDeque::new();
    let mut batch = Batch::default();
    let mut due = Instant::now();
    let mut open = true;
    while open || !batch.is_empty() || !ready.is_empty() {
        while !batch.is_full(most)
            && let Some(decoded) = ready.pop_front()
        {
            if batch.is_empty() {
                due = Instant::now() + delay;
            }
            batch.push(decoded);
        }
        let full = batch.is_full(most);
        let is_due = !batch.is_empty() && (full || !open || Instant::now() >= due);
        tokio::select! {
            biased;
            permit = batches.reserve(), if is_due => match permit {
                Ok(permit) => permit.send(std::mem::take(&mut batch)),
                // The writers are gone, and with them the reason to gather.
                Err(_) => return Ok(()),
            },
            next = entries.recv(), if open && !full => match next {
                Some(decoding) => ready.extend(decoding.await?),
                None => open = false,
            },
            () = sleep_until(due), if !batch.is_empty() && !is_due => {}
        }
    }
    Ok(())
}

/// How many ops an entry counts for in a transaction: one at least.
pub(crate) fn ops(entry: &Entry) -> usize {
    match &entry.event {
        Event::Commit(commit) => commit.ops.len().max(1),
        Event::Identity(_) | Event::Account(_) => 1,
    }
}

/// The fields of an entry as bytes, empty where it has none.
pub(crate) fn field(value: &Option<Bytes>) -> &[u8] {
    value.as_deref().unwrap_or_default()
}

/// The ID that orders an entry, whether it can be decoded or not.
pub(crate) fn order(raw: &RawEntry<Bytes>) -> penstock_core::stream::StreamId {
    let told = raw.orig_id.as_deref().and_then(|id| str::from_utf8(id).ok()).and_then(|id| id.parse().ok());
    told.unwrap_or(raw.id)
}
