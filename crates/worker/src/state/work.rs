//! What the tasks of one worker share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use penstock_core::live::Claim;
use penstock_core::settings::Settings;
use tokio::sync::{Mutex, Notify, RwLock};
use tokio_util::sync::CancellationToken;

use super::added_letters::AddedLetters;
use super::held::Held;
use super::ops_limit::OpsLimit;
use super::outages::Outages;
use super::parts_queue::PartsQueue;
use super::servers::Servers;
use crate::action::Action;
use crate::consumer::{Answer, Consumer};
use crate::events::Events;
use crate::store::Store;
use penstock_core::backoff::Backoff;

/// The pauses between tries of a Redis that fails.
const REDIS_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Everything the tasks of one worker share that work on one of the streams.
pub(crate) struct Work {
    pub(crate) settings: Arc<Settings>,
    pub(crate) consumer: Consumer,
    /// Claims the Redis prefix for this pipeline.
    pub(crate) claim: Claim,
    pub(crate) store: Store,
    pub(crate) held: Arc<Held>,
    /// What is held of the other stream.
    pub(crate) held_beside: Arc<Held>,
    /// The most entries of one batch.
    pub(crate) batch_size: usize,
    /// Whether this is about the second stream.
    pub(crate) is_bulk: bool,
    /// Whether the last read of the first stream reached its end.
    pub(crate) is_drained: Arc<AtomicBool>,
    /// Takes entries that are written alone, in parts.
    pub(crate) parts_queue: PartsQueue,
    /// Held while one of those is written, of either stream: two might need more memory than there is.
    pub(crate) parts_turn: Arc<Mutex<()>>,
    /// How many ops one transaction takes.
    pub(crate) ops_limit: OpsLimit,
    /// Counts the dead letters that were added to PostgreSQL.
    pub(crate) added_letters: Arc<AddedLetters>,
    pub(crate) events: Arc<Events>,
    /// Held for reading while entries are decoded or applied, and for writing while one suspect is tried alone.
    pub(crate) suspect_lock: Arc<RwLock<()>>,
    /// An account was deleted: its rows wait to be removed.
    pub(crate) deleted_account: Arc<Notify>,
    /// The public counts are missing.
    pub(crate) counts_gone: Arc<Notify>,
    /// Cancelled when nothing more is to be read.
    pub(crate) stop: CancellationToken,
    /// Cancelled when what is not settled is to be left to others.
    pub(crate) abandon: CancellationToken,
    pub(crate) outages: Outages,
    /// Whether Redis and PostgreSQL answer.
    pub(crate) servers: Arc<Servers>,
}

/// The time to settle entries is over: what is left stays pending, for another worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abandoned;

// === impl Work ===

impl Work {
    /// Repeats an idempotent command until Redis answers.
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
            if let Some(answer) = self.record(action, answer) {
                return Ok(answer);
            }
            self.pause(backoff.fail()).await?;
        }
    }

    /// Shows how much is held of both streams.
    pub(crate) fn show_held(&self) {
        self.events.held(self.held.len() + self.held_beside.len());
    }

    /// Records whether an action succeeded; returns its value if it did.
    pub(crate) fn record<T, E: std::error::Error + 'static>(&self, action: Action, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.outages.over(action, &self.events);
                Some(value)
            }
            Err(error) => {
                self.outages.failed(action, &error, &self.events);
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

    /// Waits for the next round of something periodic; `false` when the worker is asked to stop.
    pub(crate) async fn rest(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.stop.cancelled() => false,
        }
    }
}
