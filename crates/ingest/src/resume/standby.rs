//! Samples the heads of standby relays, so that a failover knows where to start.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::HashesInterface;
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use penstock_core::causes::chain;
use penstock_core::live::{Head, state};
use penstock_core::script;
use penstock_core::settings::{RelayUrl, Settings};
use penstock_wire::{Event, Frame, Limits, Sync};
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, warn};

use crate::events::Events;
use crate::relay::socket;
use crate::relay::transport::Skimming;
use crate::stream::live::Connection;

/// How many samples of one host are kept until the cursor has passed one. Then every other is dropped, so that they
/// reach back as far as the cursor lags, the older the sparser.
const SAMPLES: usize = 128;

/// How many events a sample takes: the latest of their times counts, because a single one may be too early.
const EVENTS: usize = 8;

/// A sample counts as passed once the cursor's event is this much later: hosts' clocks differ.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// How long a standby relay is listened to at most.
const SAMPLE: Duration = Duration::from_secs(10);

/// Samples the relays that are not being read.
pub(crate) struct Standby {
    /// The connection for commands.
    pub(crate) client: Client,
    /// All settings.
    pub(crate) settings: Arc<Settings>,
    /// Knows the cursor's age.
    pub(crate) events: Events,
    /// Tells which relay is being read.
    pub(crate) connection: watch::Receiver<Connection>,
}

// === impl Standby ===

impl Standby {
    /// Samples at each interval, until dropped; does nothing if there is only one relay.
    pub(crate) async fn run(self) {
        if self.settings.relay.urls.len() < 2 {
            return std::future::pending().await;
        }
        let mut samples: HashMap<String, VecDeque<Head>> = HashMap::new();
        let mut tick = interval(self.settings.relay.standby_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let reading = self.connection.borrow().url.clone();
            for relay in self.settings.relay.urls.iter().filter(|relay| relay.to_string() != reading) {
                let host = relay.host();
                match self.head(relay).await {
                    Some(head) => {
                        let samples = samples.entry(host.clone()).or_default();
                        if samples.back().is_some_and(|last| head.seq < last.seq) {
                            debug!(
                                host,
                                seq = head.seq,
                                "standby relay restarted its sequence, discarding its samples"
                            );
                            samples.clear();
                            self.forget(&host).await;
                        }
                        if samples.len() >= SAMPLES {
                            thin_out(samples);
                        }
                        samples.push_back(head);
                    }
                    None => debug!(host, "could not sample the standby relay"),
                }
                if let Some(head) = samples.get_mut(&host).and_then(|samples| self.passed(samples)) {
                    self.store(&host, &head).await;
                }
            }
        }
    }

    /// Takes the newest sample that the cursor has passed, and drops the older ones.
    fn passed(&self, samples: &mut VecDeque<Head>) -> Option<Head> {
        let now = Timestamp::now();
        let lag = SignedDuration::try_from(self.events.progress().lag(now)?).ok()?;
        let event_time = now.checked_sub(lag).ok()?;
        let written = self.events.progress().written()?;
        let margin = SignedDuration::try_from(self.settings.relay.standby_interval).ok()?;
        newest_passed(samples, event_time, written.checked_sub(margin).ok()?)
    }

    async fn head(&self, relay: &RelayUrl) -> Option<Head> {
        let mut socket = socket::connect(relay, None, Skimming::No, &self.settings.relay).await.ok()?;
        let mut head: Option<Head> = None;
        let sample = async {
            for _ in 0..EVENTS {
                let (seq, time) = loop {
                    let Some(Ok(message)) = socket.next().await else { return };
                    let Message::Binary(frame) = message else { continue };
                    match penstock_wire::decode(&frame, &Limits::default()) {
                        Ok(Frame::Event(Event { seq, time: Some(time), .. }))
                        | Ok(Frame::Sync(Sync { seq, time: Some(time), .. })) => {
                            break (seq, time.min(Timestamp::now()));
                        }
                        _ => {}
                    }
                };
                let head = head.get_or_insert(Head { seq, time, taken: Some(Timestamp::now()) });
                // A stray number would skip what the host has yet to send: take the least.
                head.seq = head.seq.min(seq);
                head.time = head.time.max(time);
            }
        };
        // On a quiet host the timeout ends it, with what has arrived.
        let _ = timeout(SAMPLE, sample).await;
        let _ = timeout(Duration::from_millis(500), socket.close(None)).await;
        head
    }

    /// Removes the head of a host that restarted its sequence: its old numbers mean nothing in the new one.
    async fn forget(&self, host: &str) {
        let removed: Result<i64, _> = self.client.hdel(self.settings.keys.ingest_state(), state::standby(host)).await;
        if let Err(error) = removed
            && !self.events.servers().is_of_outage(&error)
        {
            warn!(error = chain(&error), host, "could not remove an outdated standby head");
        }
    }

    async fn store(&self, host: &str, head: &Head) {
        let Ok(json) = serde_json::to_string(head) else { return };
        let key = self.settings.keys.ingest_state();
        let stored = script::set_field(&self.client, key, &state::standby(host), &json).await;
        if let Err(error) = stored
            && !self.events.servers().is_of_outage(&error)
        {
            warn!(error = chain(&error), host, "could not store the standby head");
        }
    }
}

/// Takes the newest sample that has been passed, and drops the older ones: by the hosts' clocks the cursor's event is later, and
/// by ours something was written long after the sample was taken. If a clock is off, one of the two alone proves nothing.
fn newest_passed(samples: &mut VecDeque<Head>, event_time: Timestamp, written: Timestamp) -> Option<Head> {
    let mut newest = None;
    while let Some(head) = samples.front() {
        let is_later = head.time.checked_add(MARGIN).is_ok_and(|passed| passed <= event_time);
        if is_later && head.taken.is_none_or(|taken| taken <= written) {
            newest = samples.pop_front();
        } else {
            break;
        }
    }
    newest
}

/// Drops every other sample, but not the oldest.
fn thin_out(samples: &mut VecDeque<Head>) {
    let mut keep = false;
    samples.retain(|_| {
        keep = !keep;
        keep
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sample_that_the_cursor_has_passed_is_used() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let head = |seq, seconds| Head { seq, time: at(seconds), taken: Some(at(1_000 + seconds)) };
        let mut samples = VecDeque::from([head(1, 100), head(2, 160), head(3, 220)]);
        let late = at(9_000);
        assert_eq!(newest_passed(&mut samples, at(159), late), None, "a lagging cursor needs an older sample");
        assert_eq!(newest_passed(&mut samples, at(9_000), at(1_099)), None, "nothing was written since");
        assert_eq!(newest_passed(&mut samples, at(220), late), Some(head(2, 160)));
        assert_eq!(samples, [head(3, 220)]);
    }

    #[test]
    fn samples_reach_back_however_long_the_cursor_lags() {
        let mut samples: VecDeque<Head> = VecDeque::new();
        for minute in 0..10_000 {
            if samples.len() >= SAMPLES {
                thin_out(&mut samples);
            }
            let time = Timestamp::from_second(minute * 60).unwrap();
            samples.push_back(Head { seq: u64::try_from(minute).unwrap(), time, taken: None });
        }
        assert!(samples.len() <= SAMPLES);
        assert_eq!((samples[0].seq, samples.back().map(|head| head.seq)), (0, Some(9_999)));
    }
}
