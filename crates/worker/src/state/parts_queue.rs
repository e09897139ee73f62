//! The way to the task that writes entries in parts, each by itself.

use tokio::sync::mpsc::UnboundedSender;

use crate::consumer::Delivery;

/// Where entries are sent that go alone; bounded by what may be held.
#[derive(Debug)]
pub(crate) struct PartsQueue(UnboundedSender<Delivery>);

// === impl PartsQueue ===

impl PartsQueue {
    pub(crate) fn new(to: UnboundedSender<Delivery>) -> Self {
        Self(to)
    }

    /// Sends an entry there.
    pub(crate) fn send(&self, delivery: Delivery) {
        // Whoever receives outlives the others, or the process ends anyway and what is held is handed back.
        let _ = self.0.send(delivery);
    }
}
