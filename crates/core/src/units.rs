//! Numbers as log lines have them: rounded, as numbers.

use std::time::Duration;

/// Returns a time in seconds, for a field that ends in `_seconds`: whole ones from ten, tenths from one, below that thousandths.
#[must_use]
pub fn seconds(time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    let parts = match seconds {
        10.0.. => 1.0,
        1.0.. => 10.0,
        _ => 1_000.0,
    };
    (seconds * parts).round() / parts
}

/// Rounds a rate to tenths.
#[must_use]
pub fn tenths(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_round_numbers() {
        for (micros, expected) in [
            (0, 0.0),
            (3_412, 0.003),
            (250_000, 0.25),
            (999_600, 1.0),
            (1_234_567, 1.2),
            (9_960_000, 10.0),
            (34_412_345, 34.0),
            (86_400_000_000, 86_400.0),
        ] {
            assert_eq!(seconds(Duration::from_micros(micros)), expected, "{micros} µs");
        }
        for (rate, expected) in [(0.0, 0.0), (512.345_6, 512.3), (0.04, 0.0), (f64::from(u32::MAX), 4_294_967_295.0)] {
            assert_eq!(tenths(rate), expected);
        }
    }
}
