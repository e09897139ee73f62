//! Which entries are settled, in steps: each epoch holds what was written between two looks at the workers' groups.

use std::collections::VecDeque;

use penstock_core::stream::StreamId;

/// How many numbers must be free again before all are shifted, for which the whole table is walked.
const ENOUGH: u16 = 4_096;

/// Epochs in order, of which the first are settled.
#[derive(Debug)]
pub(crate) struct Epochs {
    /// The epoch of what is written now.
    open: u16,
    /// The last entry of it.
    last: Option<StreamId>,
    /// Epochs that are not settled, each with its last entry.
    closed: VecDeque<(u16, StreamId)>,
    /// The last one that is settled.
    settled: u16,
}

// === impl Epochs ===

impl Epochs {
    /// Starts with nothing written.
    pub(crate) fn new() -> Self {
        Self { open: 1, last: None, closed: VecDeque::new(), settled: 0 }
    }

    /// Returns the epoch of what is written now.
    pub(crate) fn open(&self) -> u16 {
        self.open
    }

    /// Records an entry that was written.
    pub(crate) fn written(&mut self, id: StreamId) {
        self.last = self.last.max(Some(id));
    }

    /// Returns whether everything of an epoch is settled.
    pub(crate) fn is_settled(&self, epoch: u16) -> bool {
        epoch <= self.settled
    }

    /// Records up to which entry everything is settled; returns whether that settles more than before.
    pub(crate) fn settle(&mut self, through: StreamId) -> bool {
        // Without a free number the open epoch goes on: it is settled as a whole, later.
        if let Some(last) = self.last
            && self.open < u16::MAX
        {
            self.closed.push_back((self.open, last));
            (self.open, self.last) = (self.open + 1, None);
        }
        let before = self.settled;
        while let Some((epoch, _)) = self.closed.pop_front_if(|(_, last)| *last <= through) {
            self.settled = epoch;
        }
        if let Some(last) = self.last
            && self.closed.is_empty()
            && last <= through
        {
            // Only where no number is free.
            self.settled = self.open;
            self.last = None;
        }
        self.settled > before
    }

    /// Returns what to subtract from every epoch, where the numbers run out and some of them can be used again.
    pub(crate) fn excess(&self) -> Option<u16> {
        (self.open == u16::MAX && self.settled >= ENOUGH).then_some(self.settled)
    }

    /// Subtracts it.
    pub(crate) fn renumber(&mut self, excess: u16) {
        self.open -= excess;
        self.open = self.open.max(1);
        self.settled -= excess;
        for (epoch, _) in &mut self.closed {
            *epoch -= excess;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    #[test]
    fn an_epoch_is_settled_once_its_last_entry_is() {
        let mut epochs = Epochs::new();
        assert!(!epochs.settle(id(9)), "nothing was written");
        let first = epochs.open();
        epochs.written(id(10));
        epochs.written(id(12));
        epochs.written(id(11));
        assert!(!epochs.settle(id(11)) && !epochs.is_settled(first));
        let second = epochs.open();
        epochs.written(id(20));
        assert!(second > first && epochs.settle(id(12)) && epochs.is_settled(first) && !epochs.is_settled(second));
        assert!(epochs.settle(id(30)) && epochs.is_settled(second) && !epochs.is_settled(epochs.open()));
    }

    #[test]
    fn numbers_that_run_out_are_used_again_and_nothing_counts_as_settled_too_early() {
        let mut epochs = Epochs::new();
        let mut unsettled = VecDeque::new();
        for at in 0..300_000_u64 {
            if let Some(excess) = epochs.excess() {
                epochs.renumber(excess);
                for (_, epoch) in &mut unsettled {
                    *epoch -= excess;
                }
            }
            epochs.written(id(at + 1));
            unsettled.push_back((at + 1, epochs.open()));
            // The workers are behind, at one time by more epochs than there are numbers.
            let behind = if at < 150_000 { at.min(70_000) } else { 10 };
            epochs.settle(id((at + 1).saturating_sub(behind)));
            let through = (at + 1).saturating_sub(behind);
            while unsettled.front().is_some_and(|(id, _)| *id <= through) {
                unsettled.pop_front();
            }
            let (Some(first), Some(last)) = (unsettled.front(), unsettled.back()) else { continue };
            assert!(!epochs.is_settled(first.1) && !epochs.is_settled(last.1), "{at}: {epochs:?}");
        }
        assert!(epochs.settle(id(300_000)) && unsettled.iter().all(|(_, epoch)| epochs.is_settled(*epoch)));
    }
}
