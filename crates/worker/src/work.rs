//! What the tasks of one worker share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_core::settings::Settings;
use penstock_telemetry::admin::CheckHandle;
use tokio::sync::{Notify, RwLock};
use tokio_util::sync::CancellationToken;

use crate::consumer::{Answer, Consumer};
use crate::events::Events;
use crate::held::Held;
use crate::retry::{Backoff, Trouble};
use crate::store::Store;

/// The pauses between tries of a Redis that fails.
const REDIS_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Everything the tasks of one worker share.
pub(crate) struct Work {
    pub(crate) settings: Arc<Settings>,
    pub(crate) consumer: Consumer,
    pub(crate) store: Store,
    pub(crate) held: Held,
    pub(crate) events: Events,
    /// Held for reading by whoever decodes or applies entries, for writing by who tries one entry alone.
    pub(crate) floor: Arc<RwLock<()>>,
    /// An account was deleted: its rows wait to be removed.
    pub(crate) deleted_account: Notify,
    /// No more is read from here on.
    pub(crate) stop: CancellationToken,
    /// What is not settled by now stays unsettled.
    pub(crate) abandon: CancellationToken,
    pub(crate) redis: CheckHandle,
    pub(crate) postgres: CheckHandle,
}

/// The time to settle things is over: what is left stays pending, for another worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abandoned;

// === impl Work ===

impl Work {
    /// Sends a command that may be repeated until Redis answers.
    pub(crate) async fn insist<T, F>(
        &self,
        action: &'static str,
        mut command: impl FnMut() -> F,
    ) -> Result<T, Abandoned>
    where
        F: Future<Output = Answer<T>>,
    {
        let mut backoff = Backoff::new(REDIS_PAUSES.0, REDIS_PAUSES.1);
        let mut trouble = Trouble::default();
        loop {
            let answer = tokio::select! {
                biased;
                answer = command() => answer,
                () = self.abandon.cancelled() => return Err(Abandoned),
            };
            match answer {
                Ok(answer) => {
                    self.redis_answered(action, &mut trouble);
                    return Ok(answer);
                }
                Err(error) => self.redis_failed(action, &mut trouble, &error),
            }
            self.pause(backoff.pause()).await?;
        }
    }

    /// Waits, unless it is too late for that.
    pub(crate) async fn pause(&self, time: Duration) -> Result<(), Abandoned> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.abandon.cancelled() => Err(Abandoned),
        }
    }

    /// Waits until it is time for something periodic; `false` once no more is to be done.
    pub(crate) async fn rest(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.stop.cancelled() => false,
        }
    }

    pub(crate) fn redis_answered(&self, action: &'static str, trouble: &mut Trouble) {
        if let Some(after) = trouble.over(Instant::now()) {
            self.events.recovered(action, after);
        }
        self.redis.ok();
    }

    pub(crate) fn redis_failed(&self, action: &'static str, trouble: &mut Trouble, error: &fred::error::Error) {
        self.redis.failing(format!("could not {action}: {error}"));
        if let Some(failures) = trouble.failed(Instant::now()) {
            self.events.redis_failed(action, failures, error);
        }
    }

    pub(crate) fn postgres_answered(&self, action: &'static str, trouble: &mut Trouble) {
        if let Some(after) = trouble.over(Instant::now()) {
            self.events.recovered(action, after);
        }
        self.postgres.ok();
    }

    pub(crate) fn postgres_failed(&self, action: &'static str, trouble: &mut Trouble, error: &dyn std::error::Error) {
        self.postgres.failing(format!("could not {action}: {}", crate::events::chain(error)));
        if let Some(failures) = trouble.failed(Instant::now()) {
            self.events.postgres_failed(action, failures, error);
        }
    }
}
