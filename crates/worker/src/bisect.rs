//! Finds what is at fault in a batch that is refused as a whole, in about two tries for each halving.

use std::ops::Range;

/// The parts still to be tried, nearest last.
#[derive(Debug)]
pub(crate) struct Bisection {
    parts: Vec<Part>,
    current: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    range: Range<usize>,
    /// The other half comes next: if this half is good, the fault is there.
    is_first_half: bool,
    /// The whole was refused and the first half was good.
    is_known_bad: bool,
}

// === impl Bisection ===

impl Bisection {
    /// Begins with the whole.
    pub(crate) fn new(length: usize) -> Self {
        let whole = Part { range: 0..length, is_first_half: false, is_known_bad: false };
        Self { parts: Vec::from_iter((length > 0).then(|| whole.clone())), current: whole }
    }

    /// Returns the next part to be tried; [`refused`](Self::refused) or [`accepted`](Self::accepted) is to follow.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        loop {
            self.current = self.parts.pop()?;
            // A single one is tried even so: what was at fault may have been passing.
            if !(self.current.is_known_bad && self.split()) {
                return Some(self.current.range.clone());
            }
        }
    }

    /// The part that was returned last is done.
    pub(crate) fn accepted(&mut self) {
        if self.current.is_first_half
            && let Some(other) = self.parts.last_mut()
        {
            other.is_known_bad = true;
        }
    }

    /// The part that was returned last is refused; `false` where it cannot be divided any further.
    pub(crate) fn refused(&mut self) -> bool {
        self.split()
    }

    fn split(&mut self) -> bool {
        let Range { start, end } = self.current.range;
        if end - start < 2 {
            return false;
        }
        let middle = start + (end - start) / 2;
        self.parts.push(Part { range: middle..end, is_first_half: false, is_known_bad: false });
        self.parts.push(Part { range: start..middle, is_first_half: true, is_known_bad: false });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns which were found bad, which were accepted, and how many tries that took.
    fn search(length: usize, bad: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let mut bisection = Bisection::new(length);
        let (mut found, mut good, mut tries) = (Vec::new(), Vec::new(), 0);
        while let Some(part) = bisection.next() {
            tries += 1;
            if bad.iter().any(|bad| part.contains(bad)) {
                if !bisection.refused() {
                    found.extend(part);
                }
            } else {
                bisection.accepted();
                good.extend(part);
            }
        }
        (found, good, tries)
    }

    #[test]
    fn a_good_batch_takes_one_try() {
        assert_eq!(search(1000, &[]).2, 1);
        assert_eq!(search(0, &[]).2, 0);
    }

    #[test]
    fn every_bad_one_is_found_and_every_good_one_accepted_in_order() {
        for bad in [&[0][..], &[6], &[0, 6], &[2, 3], &[0, 1, 2, 3, 4, 5, 6]] {
            let (found, good, _) = search(7, bad);
            assert_eq!(found, bad);
            assert_eq!(good, (0..7).filter(|index| !bad.contains(index)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_poison_in_5000_takes_at_most_30_tries() {
        let worst = (0..5000).map(|bad| search(5000, &[bad]).2).max().unwrap();
        assert!(worst <= 30, "{worst}");
    }
}
