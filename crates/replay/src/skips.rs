//! The events that a relay leaves out, as ranges of positions.

use std::ops::Range;

/// Holds ranges in order; none is empty, and no two touch.
#[derive(Debug, Default)]
pub(crate) struct Skips(Vec<Range<u64>>);

impl Skips {
    /// Adds a range that begins at or behind the end of the last one.
    pub(crate) fn push(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }

    pub(crate) fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }

    /// The first run of those asked for of which none is skipped; where all are, an empty one that begins behind them.
    pub(crate) fn first_run(&self, asked: Range<u64>) -> Range<u64> {
        let mut run = asked;
        let passed = self.0.partition_point(|skip| skip.end <= run.start);
        for skip in &self.0[passed..] {
            if skip.start > run.start {
                run.end = run.end.min(skip.start);
                break;
            }
            run.start = skip.end;
        }
        run.start..run.end.max(run.start)
    }

    /// The position from which on `n` events lie before `position` that are not skipped; 0 where there are fewer.
    pub(crate) fn back(&self, position: u64, n: u64) -> u64 {
        let (mut at, mut left) = (position, n);
        for skip in self.0.iter().rev().skip_while(|skip| skip.start >= position) {
            let between = at.saturating_sub(skip.end);
            if left <= between {
                break;
            }
            left -= between;
            at = skip.start;
        }
        at.saturating_sub(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skips() -> Skips {
        let mut skips = Skips::default();
        [5..7, 7..10, 12..12, 20..21].into_iter().for_each(|range| skips.push(range));
        skips
    }

    #[test]
    fn touching_ranges_are_one_and_empty_ones_none() {
        assert_eq!(skips().ranges(), [5..10, 20..21]);
    }

    #[test]
    fn first_run_is_what_a_filter_leaves_up_to_its_first_gap() {
        let skips = skips();
        for start in 0..30 {
            for end in start + 1..30 {
                let run = skips.first_run(start..end);
                let kept = |position: &u64| !(5..10).contains(position) && *position != 20;
                let first = (start..).find(kept).unwrap();
                let last = (first..end).take_while(kept).last().map_or(first, |last| last + 1);
                assert_eq!(run, first..last, "{start}..{end}");
            }
        }
    }

    #[test]
    fn going_back_counts_only_what_was_not_skipped() {
        let skips = skips();
        for position in 0..30 {
            for n in 0..30 {
                let kept = (0..position).rev().filter(|at| !(5..10).contains(at) && *at != 20);
                let expected: Vec<u64> = kept.take(n as usize).collect();
                let at = skips.back(position, n);
                let run = (at..position).rev().filter(|at| !(5..10).contains(at) && *at != 20);
                assert!(run.eq(expected), "{n} back from {position}: {at}");
            }
        }
    }
}
