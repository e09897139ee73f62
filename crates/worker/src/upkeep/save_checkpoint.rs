//! Saves in PostgreSQL up to which event everything is settled: there ingest resumes if Redis is lost.
//!
//! Workers take turns by a lock in PostgreSQL, and whoever has it looks at Redis only then: what is written later was
//! also seen later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::action::Action;
use crate::consumer::StandstillReason;
use crate::state::work::Work;
use crate::store::Checkpoint;
use crate::upkeep::mark_repos;

/// For how long the checkpoint may stand still before that is logged, and how often it is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Since when the checkpoint stands still, and when that was logged last.
#[derive(Debug, Default)]
struct Standstill {
    since: Option<Instant>,
    logged: Option<Instant>,
}

/// Saves the checkpoint at its interval.
pub(crate) async fn save(work: Arc<Work>) {
    let mut standstill = Standstill::default();
    while work.rest(work.settings.worker.checkpoint_interval).await {
        let mut why = None;
        let kept = work.store.checkpoint(|incarnation| compute(&work, incarnation, &mut why)).await;
        if let Some(Some(checkpoint)) = work.record(Action::Checkpoint, kept) {
            work.events.checkpoint(&checkpoint);
            standstill = Standstill::default();
            work.events.checkpoint_still(Duration::ZERO, None);
        } else if let Some(why) = why {
            let (still, is_due) = standstill.goes_on(Instant::now());
            work.events.checkpoint_still(still, is_due.then_some(why));
        }
    }
}

/// Determines what is settled now; none if that is not known, and why.
async fn compute(work: &Work, incarnation: String, why: &mut Option<StandstillReason>) -> Option<Checkpoint> {
    let survey = work.record(Action::Survey, work.consumer.survey().await)?;
    match survey.checkpoint(&incarnation) {
        // What is before it is not read again: marks of repos must not be only in Redis by then.
        Ok(checkpoint) => mark_repos::mark_all(work).await.then_some(checkpoint),
        Err(stay) => {
            debug!(why = stay.words(), "checkpoint not advanced");
            *why = Some(stay);
            None
        }
    }
}

// === impl Standstill ===

impl Standstill {
    /// Records that it still stands still; returns for how long, and whether to log it.
    fn goes_on(&mut self, now: Instant) -> (Duration, bool) {
        let since = *self.since.get_or_insert(now);
        let is_due = now.saturating_duration_since(self.logged.unwrap_or(since)) >= LOG_INTERVAL;
        if is_due {
            self.logged = Some(now);
        }
        (now.saturating_duration_since(since), is_due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_told_each_minute_from_the_second_on() {
        let start = Instant::now();
        let mut standstill = Standstill::default();
        let told: Vec<u64> =
            (0..300).step_by(5).filter(|second| standstill.goes_on(start + Duration::from_secs(*second)).1).collect();
        assert_eq!(told, [60, 120, 180, 240]);
        assert_eq!(standstill.goes_on(start + Duration::from_secs(299)).0, Duration::from_secs(299));
    }
}
