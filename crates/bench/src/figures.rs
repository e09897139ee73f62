//! Medians, percentiles, and what a Prometheus histogram tells of them.

/// What the runs of one measurement gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(Vec<f64>);

/// The buckets of a scraped histogram: upper bound and how many observations are at or below it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram(Vec<(f64, f64)>);

// === impl Runs ===

impl Runs {
    pub(crate) fn push(&mut self, value: f64) {
        let at = self.0.partition_point(|other| *other < value);
        self.0.insert(at, value);
    }

    /// The middle one, or the mean of the middle two; 0 of none.
    pub(crate) fn median(&self) -> f64 {
        let middle = |at: usize| self.0.get(at).copied().unwrap_or_default();
        match self.0.len() {
            0 => 0.0,
            odd if odd % 2 == 1 => middle(odd / 2),
            even => f64::midpoint(middle(even / 2 - 1), middle(even / 2)),
        }
    }

    pub(crate) fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    pub(crate) fn greatest(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }
}

/// Returns the least of the sorted values that `share` of them do not exceed; 0 of none.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

// === impl Histogram ===

impl Histogram {
    /// Reads the buckets of `name` from a scrape.
    pub(crate) fn scraped(text: &str, name: &str) -> Option<Self> {
        let bucket = |line: &str| {
            let (bound, rest) = line.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?.split_once("\"}")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, rest.split_whitespace().next()?.parse().ok()?))
        };
        let buckets: Vec<_> = text.lines().filter_map(bucket).collect();
        (!buckets.is_empty()).then_some(Self(buckets))
    }

    /// Interpolates within the bucket, as Prometheus does; in the last, open bucket it is that bucket's lower bound.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let rank = share * self.0.last().map_or(0.0, |(_, all)| *all);
        let (mut below, mut passed) = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= rank && count > passed {
                let part = (rank - passed) / (count - passed);
                return if bound.is_finite() { below + (bound - below) * part } else { below };
            }
            (below, passed) = (bound, count);
        }
        below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle() {
        let runs = |values: &[f64]| {
            let mut runs = Runs::default();
            values.iter().for_each(|value| runs.push(*value));
            runs
        };
        assert_eq!(runs(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(runs(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(runs(&[]).median(), 0.0);
        assert_eq!((runs(&[3.0, 1.0]).least(), runs(&[3.0, 1.0]).greatest()), (1.0, 3.0));
    }

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 1.0), 100.0);
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_quantile_is_interpolated_within_its_bucket() {
        let text = "# TYPE a histogram\na_sum 1.0\na_bucket{le=\"0.1\"} 10\na_bucket{le=\"0.2\"} 30 # {} 0.1\n\
                    a_bucket{le=\"+Inf\"} 40\na_bucket_other{le=\"0.1\"} 1\n";
        let histogram = Histogram::scraped(text, "a").unwrap();
        assert!((histogram.quantile(0.5) - 0.15).abs() < 1e-9);
        assert!((histogram.quantile(0.25) - 0.1).abs() < 1e-9);
        assert_eq!(histogram.quantile(0.99), 0.2);
        assert_eq!(Histogram::scraped(text, "b"), None);
    }
}
