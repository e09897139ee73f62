//! What the tasks of one worker share.

use std::sync::Arc;
use std::time::Duration;

use penstock_core::live::Claim;
use penstock_core::settings::Settings;
use tokio::sync::{Notify, RwLock};
use tokio_util::sync::CancellationToken;

use crate::consumer::{Answer, Consumer};
use crate::events::Events;
use crate::held::Held;
use crate::store::Store;
use crate::trouble::{Action, Troubles};
use penstock_core::backoff::Backoff;

/// The pauses between tries of a Redis that fails.
const REDIS_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Everything the tasks of one worker share.
pub(crate) struct Work {
    pub(crate) settings: Arc<Settings>,
    pub(crate) consumer: Consumer,
    /// What stands in Redis for as long as the prefix is this pipeline's.
    pub(crate) claim: Claim,
    pub(crate) store: Store,
    pub(crate) held: Held,
    pub(crate) events: Events,
    /// Held for reading by whoever decodes or applies entries, for writing by who tries one entry alone.
    pub(crate) floor: Arc<RwLock<()>>,
    /// An account was deleted: its rows wait to be removed.
    pub(crate) deleted_account: Notify,
    /// The public counts are not there.
    pub(crate) counts_gone: Notify,
    /// No more is read from here on.
    pub(crate) stop: CancellationToken,
    /// What is not settled by now stays unsettled.
    pub(crate) abandon: CancellationToken,
    pub(crate) troubles: Troubles,
}

/// The time to settle things is over: what is left stays pending, for another worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abandoned;

// === impl Work ===

impl Work {
    /// Sends a command that may be repeated until Redis answers.
    pub(crate) async fn insist<T, F>(&self, action: Action, mut command: impl FnMut() -> F) -> Result<T, Abandoned>
    where
        F: Future<Output = Answer<T>>,
    {
        let mut backoff = Backoff::new(REDIS_PAUSES.0, REDIS_PAUSES.1);
        loop {
            let answer = tokio::select! {
                biased;
                answer = command() => answer,
                () = self.abandon.cancelled() => return Err(Abandoned),
            };
            if let Some(answer) = self.note(action, answer) {
                return Ok(answer);
            }
            self.pause(backoff.fail()).await?;
        }
    }

    /// Notes whether an action succeeded; returns what it brought.
    pub(crate) fn note<T, E: std::error::Error>(&self, action: Action, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.troubles.over(action, &self.events);
                Some(value)
            }
            Err(error) => {
                self.troubles.failed(action, &error, &self.events);
                None
            }
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
}
