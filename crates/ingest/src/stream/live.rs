//! The live keys: status, recent events, and the broadcast channel.

use std::collections::VecDeque;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use jiff::Timestamp;
use penstock_core::causes::chain;
use penstock_core::keys::Keys;
use penstock_core::live::{Broadcast, INCOMING, RECENT_EVENTS, STATUS_TTL_SECONDS, Status, state};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::events::Events;
use crate::scripts;
use crate::stream::lease::Lease;

/// Recent events are written at most this often.
const RECENT_EVERY: Duration = Duration::from_millis(250);

/// The length of the windows over which live events are sampled.
const WINDOW: Duration = Duration::from_millis(100);

/// Writes the live keys for the lease's holder.
pub(crate) struct Live {
    /// The connection for commands.
    pub(crate) client: Client,
    /// The keys' names.
    pub(crate) keys: Keys,
    /// The lease that fences the status.
    pub(crate) lease: Lease,
    /// Counts published events.
    pub(crate) events: Events,
    /// How often an unchanged status is written.
    pub(crate) interval: Duration,
    /// How long the activity of a minute is kept.
    pub(crate) activity_retention: Duration,
}

/// The state of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Whether the socket is open.
    pub(crate) connected: bool,
    /// The relay as configured.
    pub(crate) url: String,
}

/// Lets through as many live events per second as the rate allows, spread evenly.
#[derive(Debug)]
pub(crate) struct Sampler {
    per_window: u32,
    left: u32,
    until: Instant,
}

// === impl Sampler ===

impl Sampler {
    /// Starts with a full window.
    pub(crate) fn new(rate: u32, now: Instant) -> Self {
        let windows = u32::try_from(Duration::from_secs(1).as_millis() / WINDOW.as_millis()).unwrap_or(1);
        let per_window = (rate / windows).max(1);
        Self { per_window, left: per_window, until: now + WINDOW }
    }

    /// Returns whether one more event may be published.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        if now >= self.until {
            self.left = self.per_window;
            self.until = now + WINDOW;
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

// === impl Live ===

impl Live {
    /// Writes until both channels are closed, then writes the last status.
    pub(crate) async fn run(
        self,
        mut events: mpsc::Receiver<Vec<Broadcast>>,
        mut connection: watch::Receiver<Connection>,
    ) {
        let mut recent: VecDeque<Broadcast> = VecDeque::with_capacity(RECENT_EVENTS);
        let mut recent_changed = false;
        let mut recent_at = Instant::now();
        let mut status_at = Instant::now();
        let mut told = self.events.progress().published();
        loop {
            let write_recent = tokio::select! {
                biased;
                changed = connection.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => break,
                },
                () = sleep_until(status_at) => true,
                () = sleep_until(recent_at), if recent_changed => true,
                batch = events.recv() => match batch {
                    Some(batch) => {
                        remember(&mut recent, &batch);
                        recent_changed = true;
                        self.broadcast(batch).await;
                        continue;
                    }
                    None => break,
                },
            };
            status_at = Instant::now() + self.interval;
            if write_recent {
                recent_changed = false;
                recent_at = Instant::now() + RECENT_EVERY;
            }
            let status = connection.borrow_and_update().clone();
            self.write(&status, write_recent.then_some(&recent), &mut told).await;
        }
        let last = Connection { connected: false, ..connection.borrow().clone() };
        self.write(&last, Some(&recent), &mut told).await;
    }

    async fn broadcast(&self, batch: Vec<Broadcast>) {
        let events: Vec<String> = batch.iter().filter_map(|event| serde_json::to_string(event).ok()).collect();
        let count = events.len();
        match self.client.eval::<i64, _, _, _>(scripts::BROADCAST, vec![self.keys.broadcast()], events).await {
            Ok(_) => self.events.broadcast(count),
            Err(error) if self.events.servers().is_of_outage(&error) => {
                debug!(error = chain(&error), events = count, "could not publish live events");
            }
            Err(error) => warn!(error = chain(&error), events = count, "could not publish live events"),
        }
    }

    /// Writes the status and what came since `told`, the total that was told last.
    async fn write(&self, connection: &Connection, recent: Option<&VecDeque<Broadcast>>, told: &mut u64) {
        let status = Status {
            connected: connection.connected,
            url: connection.url.clone(),
            current_cursor: self.events.progress().cursor().map(|cursor| cursor.to_string()),
        };
        let status = serde_json::to_string(&status).unwrap_or_default();
        let recent = recent.and_then(|recent| serde_json::to_string(recent).ok()).unwrap_or_default();
        let published = self.events.progress().published();
        let minute = u64::try_from(Timestamp::now().as_second() / 60).unwrap_or_default();
        let keys = vec![
            self.lease.key().to_owned(),
            self.keys.status(),
            self.keys.recent_events(),
            self.keys.activity(minute),
            self.keys.ingest_state(),
        ];
        let args = vec![
            self.lease.token().to_owned(),
            status,
            recent,
            STATUS_TTL_SECONDS.to_string(),
            INCOMING.to_owned(),
            published.saturating_sub(*told).to_string(),
            self.activity_retention.as_secs().to_string(),
            state::VERIFIED.to_owned(),
            self.events.found().text(),
            state::LEFT_OUT.to_owned(),
            self.events.filter().text(),
        ];
        let written: Result<i64, Error> = self.client.eval(scripts::STATUS, keys, args).await;
        match written {
            Ok(_) => *told = published,
            Err(error) if self.events.servers().is_of_outage(&error) => {
                debug!(error = chain(&error), "could not write the status");
            }
            Err(error) => warn!(error = chain(&error), "could not write the status"),
        }
    }
}

/// Keeps the newest events, newest first.
fn remember(recent: &mut VecDeque<Broadcast>, batch: &[Broadcast]) {
    for event in batch.iter().skip(batch.len().saturating_sub(RECENT_EVENTS)) {
        recent.push_front(event.clone());
    }
    recent.truncate(RECENT_EVENTS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn events_above_the_rate_are_sampled() {
        let mut sampler = Sampler::new(200, Instant::now());
        let shown = (0..50).filter(|_| sampler.admit(Instant::now())).count();
        assert_eq!(shown, 20, "a tenth of a second's share");
        tokio::time::advance(WINDOW).await;
        assert!(sampler.admit(Instant::now()));
    }

    #[test]
    fn the_newest_fifty_are_kept_newest_first() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let batch: Vec<_> = (0..70).map(|n| Broadcast::account(&format!("did:plc:{n}"), true, now)).collect();
        let mut recent = VecDeque::new();
        remember(&mut recent, &batch[..10]);
        remember(&mut recent, &batch[10..]);
        let dids: Vec<_> = recent.iter().map(|event| event.did.clone()).collect();
        assert_eq!((dids.len(), dids[0].as_str(), dids[49].as_str()), (50, "did:plc:69", "did:plc:20"));
    }
}
