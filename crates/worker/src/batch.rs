//! Entries gathered into what one transaction applies.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use penstock_core::entry::{Entry, EntryError, RawEntry};
use tokio::sync::mpsc::{Sender, UnboundedReceiver};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};

use crate::consumer::Delivery;
use crate::decode::{Decoded, Decoding, size};
use crate::work::Work;

/// The most bytes of a batch's entries, about: one entry may go over.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What one transaction applies.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The entries.
    pub(crate) entries: Vec<Entry>,
    /// As what each of them was delivered.
    pub(crate) origins: Vec<Delivery>,
    /// What could not be decoded.
    pub(crate) unreadable: Vec<(Delivery, EntryError)>,
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
        self.bytes += size(&delivery.raw);
        match entry {
            Ok(entry) => {
                self.entries.push(entry);
                self.origins.push(delivery);
            }
            Err(error) => self.unreadable.push((delivery, error)),
        }
    }

    fn is_full(&self, most: usize) -> bool {
        self.len() >= most || self.bytes >= MAX_BYTES
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
    let most = work.settings.worker.batch_size;
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

/// The fields of an entry as bytes, empty where it has none.
pub(crate) fn field(value: &Option<Bytes>) -> &[u8] {
    value.as_deref().unwrap_or_default()
}

/// The ID that orders an entry, whether it can be decoded or not.
pub(crate) fn order(raw: &RawEntry<Bytes>) -> penstock_core::stream::StreamId {
    let told = raw.orig_id.as_deref().and_then(|id| str::from_utf8(id).ok()).and_then(|id| id.parse().ok());
    told.unwrap_or(raw.id)
}
