//! Failures that may last: each action has its own check, and a line of its own only where its server answers.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_core::causes::{chain, innermost};
use penstock_core::servers::{Circumstances, Failing};
use penstock_telemetry::admin::{CheckHandle, Health};

use super::servers::{Servers, is_unanswered};
use crate::action::Action;
use crate::events::Events;

/// For how long what one action was refused is not told again of another one.
const SAME: Duration = Duration::from_secs(60);

/// The outages of one worker, by action.
#[derive(Debug)]
pub(crate) struct Outages {
    servers: Arc<Servers>,
    /// In the order of [`Action::ALL`].
    of: Vec<(CheckHandle, Mutex<Failing>)>,
    /// What was told last, and when: a server that refuses everything is told of once.
    told: Mutex<Option<(String, Instant)>>,
}

// === impl Outages ===

impl Outages {
    /// Begins without any.
    pub(crate) fn new(health: &Health, servers: Arc<Servers>) -> Self {
        let quiet = |action: Action| {
            let check = health.check(action.server());
            check.ok();
            (check, Mutex::default())
        };
        Self { servers, of: Action::ALL.map(quiet).into(), told: Mutex::default() }
    }

    /// Records a failure; a success must follow for the worker to be ready again.
    pub(crate) fn failed(&self, action: Action, error: &(dyn Error + 'static), events: &Events) {
        let Some((check, failing)) = self.of.get(action as usize) else { return };
        let server = self.servers.of(action);
        let how = Circumstances { is_away: server.is_away(), is_unanswered: is_unanswered(error) };
        if how.is_unanswered {
            self.servers.suspect(action);
        }
        let (cause, error) = (innermost(error), chain(error));
        if action.decides_readiness() {
            check.failing(server.failure().unwrap_or_else(|| format!("could not {}: {error}", action.words())));
        }
        match lock(failing).failed(Instant::now(), how) {
            Some(failures) if self.is_news(cause) => events.failed(action, failures, &error),
            _ => events.failed_again(action, &error),
        }
    }

    /// Records a success.
    pub(crate) fn over(&self, action: Action, events: &Events) {
        self.servers.answered(action);
        let Some((check, failing)) = self.of.get(action as usize) else { return };
        let mut failing = lock(failing);
        if failing.is_on() {
            check.ok();
            if let Some(after) = failing.over(Instant::now()) {
                events.recovered(action, after);
            }
        }
    }

    fn is_news(&self, cause: String) -> bool {
        let (now, mut told) = (Instant::now(), lock(&self.told));
        let is_old =
            told.as_ref().is_some_and(|(last, at)| *last == cause && now.saturating_duration_since(*at) < SAME);
        if !is_old {
            *told = Some((cause, now));
        }
        !is_old
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
