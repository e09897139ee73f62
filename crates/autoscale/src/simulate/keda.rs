//! KEDA's rule: the redis-streams scaler on `lagCount`, and the HorizontalPodAutoscaler that it feeds.
//!
//! Everything but `lagCount`, minimum and maximum is as KEDA 2.18 and Kubernetes 1.34 have it by default. What a lag of nil means
//! depends on KEDA's version.

use std::collections::VecDeque;

use super::world::{Controller, View};
use crate::policy::Policy;

/// `pollingInterval`: how often KEDA looks whether there is anything to do for a scale of 0, in seconds.
const POLL: u64 = 30;

/// `cooldownPeriod`: how long nothing must have been to do before it scales to 0, in seconds.
const COOLDOWN: u64 = 300;

/// How often the HorizontalPodAutoscaler asks for the lag and decides, in seconds.
const SYNC: u64 = 15;

/// By which share demand must differ before it acts.
const TOLERANCE: f64 = 0.1;

/// Its default policies for more: so many pods, or twice as many, each 15 s, whichever is more.
const UP_PODS: u16 = 4;

/// How long fewer must have been enough, in seconds. Its default policy then allows all to go at once.
const STABILISATION: u64 = 300;

/// What KEDA makes of a lag that Redis does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NilLag {
    /// An error, which is answered with the maximum: before 2.20.2.
    Error,
    /// 0: from 2.20.2 on.
    Zero,
}

/// KEDA and its HorizontalPodAutoscaler.
pub(crate) struct Keda {
    nil_lag: NilLag,
    lag_count: u64,
    min: u16,
    max: u16,
    last_active: u64,
    recommended: VecDeque<(u64, u16)>,
}

// === impl Keda ===

impl Keda {
    pub(crate) fn new(lag_count: u64, nil_lag: NilLag, policy: &Policy) -> Self {
        let max = policy.bound(u16::MAX).max(1);
        Self { nil_lag, lag_count, min: policy.min, max, last_active: 0, recommended: VecDeque::new() }
    }

    /// What it takes Redis' answer for.
    fn read(&self, lag: Option<u64>) -> Option<u64> {
        match self.nil_lag {
            NilLag::Error => lag,
            NilLag::Zero => Some(lag.unwrap_or(0)),
        }
    }

    /// The scale between 0 and 1, which is KEDA's own.
    fn poll(&mut self, now: u64, current: u16, lag: Option<u64>) -> u16 {
        // Where Redis tells no lag, the scaler is in error: never active, and never known to be idle.
        match lag {
            Some(0) if current > 0 && self.min == 0 && now >= self.last_active + COOLDOWN => 0,
            Some(0) | None => current,
            Some(_) => {
                self.last_active = now;
                current.max(self.min.max(1))
            }
        }
    }

    /// The scale between 1 and the maximum, which is the HorizontalPodAutoscaler's.
    fn sync(&mut self, now: u64, current: u16, lag: Option<u64>) -> u16 {
        let wanted = match lag {
            None => self.max,
            Some(lag) => {
                let each = lag as f64 / self.lag_count as f64;
                if (each / f64::from(current) - 1.0).abs() <= TOLERANCE { current } else { saturate(each.ceil()) }
            }
        };
        let wanted = wanted.clamp(self.min.max(1), self.max);
        self.recommended.push_back((now, wanted));
        while self.recommended.front().is_some_and(|(at, _)| now - at > STABILISATION) {
            self.recommended.pop_front();
        }
        if wanted > current {
            return wanted.min(current.saturating_add(UP_PODS).max(current.saturating_mul(2)));
        }
        let peak = self.recommended.iter().map(|(_, wanted)| *wanted).max().unwrap_or(current);
        peak.min(current)
    }
}

impl Controller for Keda {
    fn tick(&mut self, now: u64, view: &View<'_>) -> u16 {
        let (mut current, _) = view.fleet();
        let lag = self.read(view.lag());
        if now.is_multiple_of(POLL) {
            current = self.poll(now, current, lag);
        }
        if current > 0 && now.is_multiple_of(SYNC) {
            current = self.sync(now, current, lag);
        }
        current
    }
}

fn saturate(count: f64) -> u16 {
    count.clamp(0.0, f64::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keda(lag_count: u64, min: u16) -> Keda {
        of_version(lag_count, NilLag::Error, min)
    }

    fn of_version(lag_count: u64, nil_lag: NilLag, min: u16) -> Keda {
        Keda::new(lag_count, nil_lag, &Policy { min, max: 10, ..Policy::default() })
    }

    #[test]
    fn from_2_20_2_on_no_lag_means_nothing_to_do() {
        let mut keda = of_version(100, NilLag::Zero, 1);
        let lag = keda.read(None);
        assert_eq!(lag, Some(0));
        assert_eq!(keda.sync(15, 1, lag), 1, "never more than one");
        let mut from_zero = of_version(100, NilLag::Zero, 0);
        assert_eq!(from_zero.poll(30, 0, lag), 0, "never a first one");
        assert_eq!(from_zero.poll(COOLDOWN, 3, lag), 0, "and those that there are go");
        assert_eq!(keda.read(Some(7)), Some(7));
    }

    #[test]
    fn a_thousand_entries_bring_ten_workers_in_three_steps() {
        // As measured from none: the first within 30 s, ten of them two syncs later.
        let mut keda = keda(100, 0);
        assert_eq!(keda.poll(0, 0, Some(1_000)), 1);
        assert_eq!(keda.sync(15, 1, Some(1_000)), 5);
        assert_eq!(keda.sync(30, 5, Some(1_000)), 10);
    }

    #[test]
    fn no_lag_means_the_maximum_or_never_a_worker() {
        assert_eq!(keda(100, 1).sync(15, 6, None), 10);
        assert_eq!(keda(100, 0).poll(30, 0, None), 0);
    }

    #[test]
    fn entries_of_a_dead_consumer_do_not_count() {
        let mut keda = keda(100, 0);
        assert_eq!(keda.poll(0, 1, Some(5)), 1);
        assert_eq!(keda.poll(270, 1, Some(0)), 1);
        assert_eq!(keda.poll(300, 1, Some(0)), 0);
    }

    #[test]
    fn fewer_come_only_after_five_minutes() {
        let mut keda = keda(100, 1);
        assert_eq!(keda.sync(0, 8, Some(800)), 8);
        assert_eq!(keda.sync(300, 8, Some(0)), 8);
        assert_eq!(keda.sync(315, 8, Some(0)), 1);
    }

    #[test]
    fn a_tenth_more_or_less_changes_nothing() {
        assert_eq!(keda(100, 1).sync(0, 5, Some(549)), 5);
        assert_eq!(keda(100, 1).sync(0, 5, Some(551)), 6);
    }
}
