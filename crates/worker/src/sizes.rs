//! How many entries to ask for at once, judged by the size of those seen lately.

use crate::consumer::Delivery;
use crate::decode::size;

/// The largest entry there is: what ingest writes at most.
const MAX_ENTRY: usize = 16 * 1024 * 1024;

/// What one answer should bring, in bytes, if its entries are like those of the answer before.
const TARGET_BYTES: usize = 2 * 1024 * 1024;

/// What one answer may bring, in bytes, were all its entries as large as the largest seen lately.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// The sizes of the entries seen lately.
///
/// How large an entry is shows only once it is here. So the first are taken to be as large as they may be, and a large
/// one is remembered for a while: it is forgotten by a quarter an answer, from 16 MB to nothing remarkable in 17.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    mean: usize,
    largest: usize,
}

// === impl Sizes ===

impl Sizes {
    /// Knows nothing yet.
    pub(crate) fn new() -> Self {
        Self { mean: 1, largest: MAX_ENTRY }
    }

    /// Returns how many entries to ask for, 1 to `most`.
    pub(crate) fn count(self, most: usize) -> usize {
        (TARGET_BYTES / self.mean).max(4).min(MOST_BYTES / self.largest).clamp(1, most.max(1))
    }

    /// Looks at what an answer brought.
    pub(crate) fn see(&mut self, deliveries: &[Delivery]) {
        let sizes = || deliveries.iter().map(|delivery| size(&delivery.raw));
        if let Some(largest) = sizes().max() {
            self.mean = (sizes().sum::<usize>() / deliveries.len()).max(1);
            self.largest = largest.max(self.largest / 4 * 3).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use penstock_core::entry::RawEntry;
    use penstock_core::stream::StreamId;

    use super::*;

    const MOST: usize = 500;

    fn deliveries(sizes: &[usize]) -> Vec<Delivery> {
        let delivery = |size: &usize| {
            let raw = RawEntry::from_fields(StreamId::MIN, [("data", Bytes::from(vec![b'x'; *size]))]);
            Delivery { raw, times: 1 }
        };
        sizes.iter().map(delivery).collect()
    }

    /// Asks for as many as after answers of entries of 500 bytes, as soon as that is all there is.
    fn small() -> Sizes {
        let mut sizes = Sizes::new();
        for _ in 0..20 {
            sizes.see(&deliveries(&[500; 10]));
        }
        sizes
    }

    #[test]
    fn the_first_entries_are_taken_to_be_as_large_as_they_may_be() {
        let mut sizes = Sizes::new();
        assert_eq!(sizes.count(MOST), 4);
        sizes.see(&[]);
        assert_eq!(sizes.count(MOST), 4, "an empty answer tells nothing");
        assert_eq!(sizes.count(2), 2);
        assert_eq!(small().count(MOST), MOST);
    }

    #[test]
    fn one_large_entry_among_small_ones_is_remembered_for_a_while() {
        let mut sizes = small();
        let mut seen = vec![500; 200];
        seen.push(MAX_ENTRY);
        sizes.see(&deliveries(&seen));
        let mut answers = 0;
        while sizes.count(MOST) < MOST {
            assert!(sizes.count(MOST) * sizes.largest <= MOST_BYTES);
            sizes.see(&deliveries(&[500; 10]));
            answers += 1;
        }
        assert_eq!(answers, 17);
    }

    #[test]
    fn large_entries_are_asked_for_few_at_a_time() {
        let mut sizes = small();
        sizes.see(&deliveries(&[TARGET_BYTES / 8; 3]));
        assert_eq!(sizes.count(MOST), 8);
        sizes.see(&deliveries(&[TARGET_BYTES * 4; 3]));
        assert_eq!(sizes.count(MOST), 4);
        sizes.see(&deliveries(&[MAX_ENTRY * 8; 1]));
        assert_eq!(sizes.count(MOST), 1, "somebody else's may be larger still");
    }
}
