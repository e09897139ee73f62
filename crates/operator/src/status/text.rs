//! Numbers for people: rounded, so that the status does not change for nothing.

use penstock_autoscale::Lag;

/// Keeps three digits that count.
pub(super) fn round(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 1_000 {
        unit *= 10;
    }
    number / unit * unit
}

/// Keeps what a person would say of a time: whole seconds to two minutes, minutes to two hours, then hours.
pub(super) fn round_seconds(seconds: i64) -> i64 {
    match seconds {
        ..120 => seconds,
        120..7_200 => seconds / 60 * 60,
        _ => seconds / 600 * 600,
    }
}

/// Writes a time such as `3s`, `12m` or `5h10m`.
pub(crate) fn seconds(seconds: i64) -> String {
    let seconds = round_seconds(seconds);
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Writes how much waits: a number, `>= N` or `unknown`.
pub(super) fn backlog(lag: Lag) -> String {
    match lag {
        Lag::Exact(count) => round(count).to_string(),
        Lag::AtLeast(count) => format!(">= {}", round(count)),
        Lag::Unknown(_) => "unknown".to_owned(),
    }
}

/// Writes entries a second.
pub(crate) fn rate(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { round(rate as u64).to_string() }
}

#[cfg(test)]
mod tests {
    use penstock_autoscale::LagGap;

    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let rounded = [0, 999, 1_000, 12_345, 1_234_567].map(round);
        assert_eq!(rounded, [0, 999, 1_000, 12_300, 1_230_000]);
        assert_eq!(round(u64::MAX), 18_400_000_000_000_000_000);
        assert_eq!((rate(0.04), rate(420.7)), ("0.0".to_owned(), "420".to_owned()));
    }

    #[test]
    fn times_are_written_for_people() {
        let told = [0, 119, 125, 7_300, 18_720, 200_000].map(seconds);
        assert_eq!(told, ["0s", "119s", "2m", "2h00m", "5h10m", "2d07h"]);
    }

    #[test]
    fn an_unknown_backlog_is_no_number() {
        assert_eq!(backlog(Lag::Unknown(LagGap::StreamMissing)), "unknown");
        assert_eq!(backlog(Lag::AtLeast(200)), ">= 200");
        assert_eq!(backlog(Lag::Exact(0)), "0");
    }
}
