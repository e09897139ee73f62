//! Who hands over to whom, when and how: all of it from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::processor::Kind;

/// Everything that is decided before a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How often the TypeScript ingestion pushes old events again.
    pub(crate) stumbles: Duration,
    pub(crate) rounds: Vec<Round>,
}

/// One alternation: on the upper side of the stream, on the lower one, or on both.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) ingest: Option<Turn>,
    pub(crate) workers: Option<Turn>,
    /// How long the relay refuses everybody from then on.
    pub(crate) late: Option<Duration>,
    /// Redis is stopped or killed (`true`) when both have changed, and started again.
    pub(crate) redis: Option<bool>,
    /// How long it goes on after that.
    pub(crate) lasts: Duration,
}

/// How one side hands over to the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Which of theirs it is, where it is theirs that begins.
    pub(crate) theirs: Kind,
    pub(crate) manner: Manner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// SIGTERM, then the other starts.
    Terminate,
    /// SIGKILL, then the other starts.
    Kill,
    /// The other starts, and for so long both run; then SIGTERM, or SIGKILL (`true`).
    Both(Duration, bool),
    /// The other starts, and is killed after so long, while the one before goes on.
    Visit(Duration),
}

impl Plan {
    pub(crate) fn of(seed: u64, rounds: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let stumbles = Duration::from_millis(random.random_range(600..1_500));
        let rounds = (0..rounds).map(|_| Round::of(&mut random)).collect();
        Self { seed, stumbles, rounds }
    }
}

impl Round {
    fn of(random: &mut StdRng) -> Self {
        let (ingest, workers) = *[(true, false), (false, true), (true, true)].choose(random).unwrap();
        Self {
            ingest: ingest.then(|| Turn::of(random)),
            workers: workers.then(|| Turn::of(random)),
            late: random.random_bool(0.25).then(|| millis(random, 200..1_200)),
            redis: random.random_bool(0.12).then(|| random.random_bool(0.5)),
            lasts: millis(random, 300..1_500),
        }
    }
}

impl Turn {
    fn of(random: &mut StdRng) -> Self {
        let manner = match random.random_range(0..10) {
            0..3 => Manner::Terminate,
            3..6 => Manner::Kill,
            6..8 => Manner::Both(millis(random, 50..900), random.random_bool(0.5)),
            _ => Manner::Visit(millis(random, 50..900)),
        };
        Self { theirs: *[Kind::Python, Kind::TypeScript].choose(random).unwrap(), manner }
    }
}

fn millis(random: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}
