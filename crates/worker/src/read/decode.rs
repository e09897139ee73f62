//! Entries are decoded away from the task that reads them, a read at a time, on whichever core is free.

use std::sync::Arc;

use penstock_core::entry::{Entry, EntryError};
use tokio::task::JoinHandle;

use crate::consumer::Delivery;
use crate::events::place;
use crate::state::work::Work;

/// Entries that are being decoded, in the order in which they were read.
pub(crate) type Decoding = JoinHandle<Vec<Decoded>>;

/// An entry and how it was delivered.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) delivery: Delivery,
    pub(crate) entry: Result<Entry, EntryError>,
}

/// Decodes entries in the background.
pub(crate) fn decode(work: &Arc<Work>, deliveries: Vec<Delivery>) -> Decoding {
    let work = Arc::clone(work);
    tokio::spawn(async move {
        let turn = Arc::clone(&work.suspect_lock).read_owned().await;
        let mut kinds = [0; 4];
        let mut decoded = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let entry = delivery.raw.decode();
            kinds[place(entry.as_ref().ok().map(|entry| entry.event.kind()))] += 1;
            decoded.push(Decoded { delivery, entry });
            if decoded.len() % 32 == 0 {
                // A large read is not to keep a core from everything else.
                tokio::task::yield_now().await;
            }
        }
        drop(turn);
        work.events.decoded(kinds);
        decoded
    })
}
