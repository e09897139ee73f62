//! Requeues entries that nobody will come back to, while the workers are those of another system.
//!
//! Those read only new entries, under names that change with each start. What they held when they stopped stays pending
//! for good, is never trimmed, and fills the stream. So while no worker of ours is alive to claim it,
//! ingest puts it back at the tail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{KeysInterface, LuaInterface, StreamsInterface};
use fred::types::Value;
use penstock_core::causes::chain;
use penstock_core::dead_letter::Author;
use penstock_core::servers::Failing;
use penstock_core::settings::Settings;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use crate::events::{Events, Round};
use crate::scripts;
use crate::stream::lease::Lease;

/// The most entries one script puts back.
pub(crate) const COUNT: usize = 100;

/// Roughly the most bytes of entries it copies.
pub(crate) const BYTES: usize = 4_000_000;

/// The most scripts a round runs before it reports, and ends unless reading is paused.
const SCRIPTS: usize = 10;

/// How often an entry is put back while workers make progress: one that is never acknowledged may crash whoever takes it.
const TIMES: u32 = 5;

/// The longest pause between two rounds.
const ROUND: Duration = Duration::from_secs(10);

/// How long workers of ours may be away before they count as gone, in claim times, and at least.
const AWAY: (u32, Duration) = (5, Duration::from_secs(60));

/// Puts back idle entries while the lease is held.
pub(crate) struct Requeuer {
    /// The connection for commands.
    pub(crate) client: Client,
    /// All settings.
    pub(crate) settings: Arc<Settings>,
    /// The lease that fences it.
    pub(crate) lease: Lease,
    /// Logs and counts.
    pub(crate) events: Events,
    /// Whether reading is paused: idle entries may be what fills the stream.
    pub(crate) paused: watch::Receiver<bool>,
}

/// The progress of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct RoundCursor {
    /// The ID to go on from; none before the first script.
    from: Option<String>,
    /// How many entries of each consumer were put back more than once.
    again: HashMap<String, u64>,
    /// Whether more may be left.
    more: bool,
}

/// When a worker of ours was last alive; none where none was within a day.
#[derive(Clone, Copy, Debug, Default)]
struct LastSeen(Option<Instant>);

// === impl Requeuer ===

impl Requeuer {
    /// Checks several times per claim time, until dropped.
    pub(crate) async fn run(mut self) {
        let mut failing = Failing::default();
        let mut ours = LastSeen::default();
        let mut progress = RoundCursor::default();
        let mut tick = interval((self.settings.worker.claim_time / 3).min(ROUND));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => progress = RoundCursor::default(),
                Ok(_) = self.paused.wait_for(|paused| *paused), if progress.more => {}
            }
            match self.round(&mut ours, &mut progress).await {
                Ok(round) => {
                    failing.over(std::time::Instant::now());
                    self.events.requeued(&round);
                }
                Err(error) => {
                    progress.more = false;
                    if !is_nothing_there(&error) && self.events.is_due(&mut failing, &error) {
                        warn!(error = chain(&error), "could not check for abandoned entries");
                    }
                }
            }
        }
    }

    /// Runs one round, up to its limits.
    async fn round(&self, ours: &mut LastSeen, progress: &mut RoundCursor) -> Result<Round, Error> {
        let keys = &self.settings.keys;
        let claim_time = self.settings.worker.claim_time;
        let consumers: Vec<HashMap<String, Value>> = self.client.xinfo_consumers(keys.stream(), keys.group()).await?;
        let names: Vec<String> = consumers.iter().filter_map(|of| of.get("name")?.as_string()).collect();
        let mut round = Round::default();
        progress.more = false;
        if names.is_empty() {
            return Ok(round);
        }
        let alive: Vec<String> = names.iter().map(|name| keys.consumer_alive(name)).collect();
        let applied: Vec<String> = names.iter().map(|name| keys.consumer_applied(name)).collect();
        let lives = self.client.exists::<u64, _>(alive.clone()).await? > 0;
        let lived = self.client.exists::<u64, _>(applied).await? > 0;
        ours.record(lives, lived, Instant::now());
        if !ours.are_gone(Instant::now(), away(claim_time)) {
            return Ok(round);
        }
        let mut touched =
            vec![self.lease.key().to_owned(), keys.stream().to_owned(), keys.ingest_state(), keys.raw_letters()];
        touched.extend(keys.beside_letters(Author::Ingest));
        touched.extend(alive);
        let idle = claim_time.as_millis();
        let numbers = [idle.to_string(), COUNT.to_string(), BYTES.to_string(), TIMES.to_string()];
        let script = scripts::requeue(&self.settings);
        for _ in 0..SCRIPTS {
            let mut arguments = vec![self.lease.token().to_owned(), keys.group().to_owned()];
            arguments.extend(numbers.iter().cloned());
            arguments.push(progress.from.clone().unwrap_or_else(|| "-".to_owned()));
            arguments.extend(progress.again.iter().flat_map(|(consumer, count)| [consumer.clone(), count.to_string()]));
            let answer: Vec<String> = self.client.eval(script.clone(), touched.clone(), arguments).await?;
            round.add(answer, progress);
            if !progress.more {
                break;
            }
        }
        Ok(round)
    }
}

// === impl LastSeen ===

impl LastSeen {
    /// Records whether one is alive, or was within a day as far as Redis knows.
    fn record(&mut self, lives: bool, lived: bool, now: Instant) {
        if lives || lived && self.0.is_none() {
            self.0 = Some(now);
        }
    }

    /// Returns whether they have been away for so long that they are gone.
    fn are_gone(self, now: Instant, away: Duration) -> bool {
        self.0.is_none_or(|last| now.saturating_duration_since(last) >= away)
    }
}

// === impl Round ===

impl Round {
    /// Adds a script's reply, and records how far it got.
    fn add(&mut self, answer: Vec<String>, progress: &mut RoundCursor) {
        let mut answer = answer.into_iter();
        progress.more = false;
        if answer.next().as_deref() != Some("ok") {
            return;
        }
        let mut next = || answer.next().unwrap_or_default();
        let counts = [next(), next(), next()];
        progress.more = next() == "1";
        progress.from = Some(next());
        for (sample, count) in [&mut self.back, &mut self.letters, &mut self.lost].into_iter().zip(counts) {
            let (id, consumer) = (next(), next());
            sample.count += count.parse::<u64>().unwrap_or_default();
            if sample.id.is_empty() {
                (sample.id, sample.consumer) = (id, consumer);
            }
        }
        while let (Some(consumer), Some(count)) = (answer.next(), answer.next()) {
            *progress.again.entry(consumer).or_default() += count.parse::<u64>().unwrap_or_default();
        }
    }
}

/// Returns how long workers of ours may be away.
pub(crate) fn away(claim_time: Duration) -> Duration {
    let (times, least) = AWAY;
    (claim_time * times).max(least)
}

/// Returns whether the stream or the group does not exist yet.
pub(crate) fn is_nothing_there(error: &Error) -> bool {
    error.details().contains("NOGROUP") || error.details().contains("no such key")
}

#[cfg(test)]
mod tests {
    use crate::events::Sample;

    use super::*;

    #[test]
    fn workers_of_ours_are_waited_for() {
        let (start, away) = (Instant::now(), Duration::from_secs(60));
        let mut ours = LastSeen::default();
        ours.record(false, false, start);
        assert!(ours.are_gone(start, away), "there never was one");
        ours.record(false, true, start);
        ours.record(false, true, start + away / 2);
        assert!(!ours.are_gone(start + away / 2, away), "one has lived, who knows when");
        assert!(ours.are_gone(start + away, away));
        ours.record(true, true, start + away);
        assert!(!ours.are_gone(start + away, away));
    }

    #[test]
    fn a_round_sums_its_scripts_and_keeps_one_entry_of_each_kind() {
        let (mut round, mut progress) = (Round::default(), RoundCursor::default());
        let said = |words: &str| words.split(' ').map(|word| word.replace('_', "")).collect::<Vec<_>>();
        round.add(said("ok 100 0 0 1 (1-0 1-0 p-0 _ _ _ _ p-0 2"), &mut progress);
        assert!(progress.more && progress.from.as_deref() == Some("(1-0"));
        round.add(said("ok 3 2 1 0 (7-0 5-0 p-1 6-0 p-2 7-0 p-3 p-0 1"), &mut progress);
        assert!(!progress.more && progress.again == HashMap::from([("p-0".to_owned(), 3)]));
        round.add(said("alive"), &mut progress);
        let sample =
            |count, id: &str, consumer: &str| Sample { count, id: id.to_owned(), consumer: consumer.to_owned() };
        let expected = (sample(103, "1-0", "p-0"), sample(2, "6-0", "p-2"), sample(1, "7-0", "p-3"));
        assert_eq!((round.back, round.letters, round.lost), expected);
    }
}
