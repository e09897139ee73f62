//! Entries that nobody will come back to, while the workers are those that we replace.
//!
//! They read what is new and nothing else, under names that change with each start: what they held when they ended stays
//! pending for good, our trim keeps it, and the stream fills up. So while no worker of ours lives, which would claim it,
//! ingest puts it back at the tail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{KeysInterface, LuaInterface, StreamsInterface};
use fred::types::Value;
use penstock_core::settings::Settings;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use crate::TELL_AGAIN;
use crate::events::Telemetry;
use crate::lease::Lease;
use crate::scripts;

/// How many entries one script puts back at most.
const COUNT: usize = 100;

/// How many bytes of entries it copies, about.
const BYTES: usize = 4_000_000;

/// How many scripts a round takes at most before it is told, and, unless reading is paused, ends.
const SCRIPTS: usize = 10;

/// How often an entry is put back at most while workers work: whoever takes it and never acknowledges it may die of it.
const TIMES: u32 = 5;

/// The longest pause between two rounds.
const ROUND: Duration = Duration::from_secs(10);

/// How many claim times workers of ours may be away, for they come back and claim; and how long at least.
const AWAY: (u32, Duration) = (5, Duration::from_secs(60));

/// Puts back what lies idle, while the lease is held.
pub(crate) struct Requeuer {
    /// The connection for commands.
    pub(crate) client: Client,
    /// All settings.
    pub(crate) settings: Arc<Settings>,
    /// The lease under which it is done.
    pub(crate) lease: Lease,
    /// Logs and counts.
    pub(crate) telemetry: Telemetry,
    /// Whether reading is paused: what lies idle may be what fills the stream.
    pub(crate) paused: watch::Receiver<bool>,
}

/// How far a round has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Behind which ID there is more; none before the first script.
    from: Option<String>,
    /// How many of each consumer's entries were put back not for the first time.
    again: HashMap<String, u64>,
    /// Whether more may be left.
    more: bool,
}

/// How many entries of a kind there were, and one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) count: u64,
    pub(crate) id: String,
    pub(crate) consumer: String,
}

/// When a worker of ours last gave a sign of life; none where none did within a day.
#[derive(Clone, Copy, Debug, Default)]
struct Ours(Option<Instant>);

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// Entries put back at the tail.
    pub(crate) back: Sample,
    /// Entries that were put back often enough: dead letters.
    pub(crate) letters: Sample,
    /// Entries that had left the stream: lost.
    pub(crate) lost: Sample,
}

// === impl Requeuer ===

impl Requeuer {
    /// Looks several times each claim time, until dropped.
    pub(crate) async fn run(mut self) {
        let mut told: Option<Instant> = None;
        let mut ours = Ours::default();
        let mut progress = Progress::default();
        let mut tick = interval((self.settings.worker.claim_time / 3).min(ROUND));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => progress = Progress::default(),
                Ok(_) = self.paused.wait_for(|paused| *paused), if progress.more => {}
            }
            match self.round(&mut ours, &mut progress).await {
                Ok(round) => self.telemetry.requeued(&round),
                Err(error) => {
                    progress.more = false;
                    if !is_nothing_there(&error) && told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                        told = Some(Instant::now());
                        warn!(%error, "could not look for entries that nobody comes back to");
                    }
                }
            }
        }
    }

    /// Puts back what there is, at most so much.
    async fn round(&self, ours: &mut Ours, progress: &mut Progress) -> Result<Round, Error> {
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
        ours.see(lives, lived, Instant::now());
        let (times, least) = AWAY;
        if !ours.are_gone(Instant::now(), (claim_time * times).max(least)) {
            return Ok(round);
        }
        let mut touched =
            vec![self.lease.key().to_owned(), keys.stream().to_owned(), keys.ingest_state(), keys.dead_letters()];
        touched.extend(alive);
        let idle = claim_time.as_millis();
        let numbers = [idle.to_string(), COUNT.to_string(), BYTES.to_string(), TIMES.to_string()];
        for _ in 0..SCRIPTS {
            let mut arguments = vec![self.lease.token().to_owned(), keys.group().to_owned()];
            arguments.extend(numbers.iter().cloned());
            arguments.push(progress.from.clone().unwrap_or_else(|| "-".to_owned()));
            arguments.extend(progress.again.iter().flat_map(|(consumer, count)| [consumer.clone(), count.to_string()]));
            let answer: Vec<String> = self.client.eval(scripts::requeue(), touched.clone(), arguments).await?;
            round.add(answer, progress);
            if !progress.more {
                break;
            }
        }
        Ok(round)
    }
}

// === impl Ours ===

impl Ours {
    /// Notes whether one lives, or has lived within a day as far as Redis knows.
    fn see(&mut self, lives: bool, lived: bool, now: Instant) {
        if lives || lived && self.0.is_none() {
            self.0 = Some(now);
        }
    }

    /// Says whether they have been away for so long that they are gone.
    fn are_gone(self, now: Instant, away: Duration) -> bool {
        self.0.is_none_or(|last| now.saturating_duration_since(last) >= away)
    }
}

// === impl Round ===

impl Round {
    /// Adds what a script answered, and notes how far it came.
    fn add(&mut self, answer: Vec<String>, progress: &mut Progress) {
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

/// Says whether there is no stream or no group yet.
fn is_nothing_there(error: &Error) -> bool {
    error.details().contains("NOGROUP") || error.details().contains("no such key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_ours_are_waited_for() {
        let (start, away) = (Instant::now(), Duration::from_secs(60));
        let mut ours = Ours::default();
        ours.see(false, false, start);
        assert!(ours.are_gone(start, away), "there never was one");
        ours.see(false, true, start);
        ours.see(false, true, start + away / 2);
        assert!(!ours.are_gone(start + away / 2, away), "one has lived, who knows when");
        assert!(ours.are_gone(start + away, away));
        ours.see(true, true, start + away);
        assert!(!ours.are_gone(start + away, away));
    }

    #[test]
    fn a_round_sums_its_scripts_and_keeps_one_entry_of_each_kind() {
        let (mut round, mut progress) = (Round::default(), Progress::default());
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
