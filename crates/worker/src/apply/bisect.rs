//! Finds the fault in a batch that is rejected as a whole, in about two tries for each halving, and divides what takes
//! too long.

use std::ops::Range;

/// The parts still to be tried, nearest last.
#[derive(Debug)]
pub(crate) struct Bisection {
    parts: Vec<Segment>,
    current: Segment,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
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
        let whole = Segment { range: 0..length, is_first_half: false, is_known_bad: false };
        Self { parts: Vec::from_iter((length > 0).then(|| whole.clone())), current: whole }
    }

    /// Returns the next part to be tried; [`refused`](Self::refused), [`accepted`](Self::accepted) or
    /// [`too_slow`](Self::too_slow) is to follow.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        loop {
            self.current = self.parts.pop()?;
            // A single one is tried even so: what was at fault may have been passing.
            if !(self.current.is_known_bad && self.split(true)) {
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
        self.split(true)
    }

    /// The part that was returned last took too long; `false` where it cannot be divided any further.
    pub(crate) fn too_slow(&mut self) -> bool {
        self.split(false)
    }

    /// Divides the part; where it has a fault, one half has it if the other has not.
    fn split(&mut self, has_fault: bool) -> bool {
        let Range { start, end } = self.current.range;
        if end - start < 2 {
            return false;
        }
        let middle = start + (end - start) / 2;
        self.parts.push(Segment { range: middle..end, is_first_half: false, is_known_bad: false });
        self.parts.push(Segment { range: start..middle, is_first_half: has_fault, is_known_bad: false });
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
    fn what_takes_too_long_is_halved_until_it_does_not_and_nothing_is_tried_twice() {
        let mut bisection = Bisection::new(1_000);
        let (mut tried, mut done) = (Vec::new(), Vec::new());
        while let Some(part) = bisection.next() {
            tried.push(part.clone());
            if part.len() > 100 {
                assert!(bisection.too_slow());
            } else {
                bisection.accepted();
                done.extend(part);
            }
        }
        assert_eq!(done, (0..1_000).collect::<Vec<_>>());
        let times = tried.len();
        tried.dedup();
        assert_eq!((tried.len(), times), (times, 31));
        let mut one = Bisection::new(1);
        assert_eq!(one.next(), Some(0..1));
        assert!(!one.too_slow());
    }

    #[test]
    fn one_poison_in_5000_takes_at_most_30_tries() {
        let worst = (0..5000).map(|bad| search(5000, &[bad]).2).max().unwrap();
        assert!(worst <= 30, "{worst}");
    }
}
