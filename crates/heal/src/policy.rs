//! What becomes of a repair that failed.

use std::time::Duration;

use penstock_core::backfill::Reason;
use penstock_core::settings::Heal;
use penstock_repo::RepoError;

/// How often what a host sends may be wrong until it is believed that it stays so.
const WRONG: u32 = 3;

/// When a repair is tried again, and when no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) retry_min: Duration,
    pub(crate) retry_max: Duration,
    pub(crate) attempts: u32,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is tried again after a pause; `attempts` failed so far.
    Again {
        /// The pause, before jitter.
        pause: Duration,
        /// How many attempts failed.
        attempts: u32,
    },
    /// No further attempt is of use.
    GiveUp,
}

/// How a repair failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nobody has the repo, or shows it: asking again changes nothing.
    Gone,
    /// What the host sent is not what it should be.
    Wrong,
    /// The host asks for patience.
    Patience,
    /// The host, or who knows where the repo is, does not answer.
    Away,
    /// Anything else, that may pass.
    Passing,
}

// === impl Policy ===

impl From<&Heal> for Policy {
    fn from(heal: &Heal) -> Self {
        Self { retry_min: heal.retry_min, retry_max: heal.retry_max.max(heal.retry_min), attempts: heal.attempts.get() }
    }
}

impl Policy {
    /// Decides about a repair of which `attempts` failed before this one, and whose host has failed `host_failures` times in a row.
    pub(crate) fn decide(
        self,
        kind: Kind,
        reason: Reason,
        attempts: u32,
        host_failures: u32,
        retry_after: Option<Duration>,
    ) -> Decision {
        let after = retry_after.unwrap_or_default();
        let failed = attempts.saturating_add(1);
        let may_be_given_up = matches!(reason, Reason::Backfill | Reason::Audit | Reason::Filter | Reason::Seam);
        let is_enough = match kind {
            Kind::Gone => return Decision::GiveUp,
            Kind::Patience => return Decision::Again { pause: after.max(self.retry_min), attempts },
            Kind::Wrong => failed >= WRONG.min(self.attempts) || (may_be_given_up && failed >= self.attempts),
            Kind::Away => may_be_given_up && (failed >= self.attempts || host_failures >= self.attempts),
            Kind::Passing => may_be_given_up && failed >= self.attempts,
        };
        if is_enough {
            return Decision::GiveUp;
        }
        Decision::Again { pause: self.pause(attempts).max(after), attempts: failed }
    }

    /// Returns the pause after so many failures before the last one.
    fn pause(self, attempts: u32) -> Duration {
        self.retry_min.saturating_mul(1_u32.checked_shl(attempts).unwrap_or(u32::MAX)).min(self.retry_max)
    }
}

// === impl Kind ===

impl Kind {
    pub(crate) fn of(error: &RepoError) -> Self {
        match error {
            RepoError::Limited { .. } | RepoError::Busy { .. } => Self::Patience,
            RepoError::Unreachable { .. } => Self::Away,
            RepoError::Identity(_)
            | RepoError::NoHost
            | RepoError::NoKey
            | RepoError::NotFound { .. }
            | RepoError::Inactive { .. }
            | RepoError::TooLarge { .. }
            | RepoError::Unproven { .. }
                if error.is_final() =>
            {
                Self::Gone
            }
            error if error.is_final() => Self::Wrong,
            _ => Self::Passing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy =
        Policy { retry_min: Duration::from_secs(10), retry_max: Duration::from_secs(3600), attempts: 8 };

    #[test]
    fn what_is_known_to_be_incomplete_is_tried_for_ever_and_what_a_backfill_covers_is_not() {
        for kind in [Kind::Away, Kind::Passing] {
            for attempts in 0..100 {
                let decided = POLICY.decide(kind, Reason::Chain, attempts, 100, None);
                assert!(matches!(decided, Decision::Again { .. }), "{kind:?}");
                for bulk in [Reason::Backfill, Reason::Filter, Reason::Seam] {
                    let decided = POLICY.decide(kind, bulk, attempts, 0, None);
                    assert_eq!(decided == Decision::GiveUp, attempts >= 7, "{kind:?} {attempts}");
                }
            }
        }
    }

    #[test]
    fn pauses_grow_to_their_bound_and_no_host_is_asked_earlier_than_it_said() {
        let pauses: Vec<u64> = (0..12)
            .map(|attempts| match POLICY.decide(Kind::Passing, Reason::Sync, attempts, 0, None) {
                Decision::Again { pause, attempts: failed } => {
                    assert_eq!(failed, attempts + 1);
                    pause.as_secs()
                }
                Decision::GiveUp => panic!("gave up"),
            })
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]);
        let asked = POLICY.decide(Kind::Away, Reason::Sync, 0, 1, Some(Duration::from_secs(90)));
        assert_eq!(asked, Decision::Again { pause: Duration::from_secs(90), attempts: 1 });
    }

    #[test]
    fn a_host_that_asks_for_patience_uses_up_no_attempt() {
        let decided = POLICY.decide(Kind::Patience, Reason::Backfill, 7, 0, Some(Duration::from_secs(300)));
        assert_eq!(decided, Decision::Again { pause: Duration::from_secs(300), attempts: 7 });
    }

    #[test]
    fn what_is_gone_ends_at_once_and_what_is_wrong_after_three_times() {
        assert_eq!(POLICY.decide(Kind::Gone, Reason::Sync, 0, 0, None), Decision::GiveUp);
        for reason in Reason::ALL {
            let ended: Vec<bool> =
                (0..3).map(|n| POLICY.decide(Kind::Wrong, reason, n, 0, None) == Decision::GiveUp).collect();
            assert_eq!(ended, [false, false, true], "{reason:?}");
        }
    }

    #[test]
    fn repos_of_a_backfill_do_not_wait_for_a_host_that_is_gone() {
        assert_eq!(POLICY.decide(Kind::Away, Reason::Backfill, 0, 8, None), Decision::GiveUp);
    }
}
