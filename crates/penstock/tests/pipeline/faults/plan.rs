//! Which faults, when, on whom and for how long: all of it from a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_replay::Fault as Whim;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::proxy::Weather;

/// How much there is of everything.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    /// Events that the relay has.
    pub(crate) events: u64,
    pub(crate) faults: usize,
    pub(crate) workers: usize,
    /// Kinds that are left out.
    pub(crate) without: Vec<String>,
    /// The time from one fault to the next of its lane.
    pub(crate) slot: Duration,
}

/// Everything that is decided before a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) size: Size,
    /// Events a second.
    pub(crate) rate: u32,
    /// Settings of all services.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Whether some accounts send what is odd, hostile or huge.
    pub(crate) is_odd: bool,
    /// Whether another group holds the stream, so that all of it can be looked at.
    pub(crate) keeps_stream: bool,
    /// What befalls the relay, ingest and Redis, one after the other.
    pub(crate) upstream: Vec<Step>,
    /// What befalls the workers and PostgreSQL, at the same time.
    pub(crate) downstream: Vec<Step>,
}

/// One fault, and when it begins.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Since the start of the relay.
    pub(crate) at: Duration,
    pub(crate) kind: &'static str,
    pub(crate) fault: Fault,
}

/// What happens to one of several processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL, and a start after the pause.
    Kill,
    /// The same, and it comes back under another name.
    Replace,
    /// SIGSTOP, and SIGCONT after the pause.
    Freeze,
}

/// Services that are beaten one at a time; which one, counted around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Ingest(usize),
    Worker(usize),
}

/// A way between services and a server, through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    IngestRedis,
    WorkersRedis,
    Postgres,
}

/// A fault. Durations say how long it lasts.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Blow(Who, Blow, Duration),
    /// Redis is stopped in order, or killed.
    RedisDown {
        kill: bool,
        pause: Duration,
    },
    RedisFrozen(Duration),
    /// A replica takes over that missed what was written for so long.
    Promoted(Duration),
    /// Redis comes back without its data.
    RedisEmptied,
    /// Somebody empties Redis while it runs.
    RedisFlushed,
    /// Somebody deletes the stream, and nothing else.
    StreamDeleted,
    PostgresDown {
        kill: bool,
        pause: Duration,
    },
    /// All connections end.
    Cut(Link),
    /// An answer that holds this never comes, or only half of it, and its connection ends.
    Trapped {
        link: Link,
        holds: &'static str,
        half: bool,
    },
    Weather(Link, Weather, Duration),
    /// The group goes back by so many entries.
    Redelivered(u64),
    /// So many pending entries change hands.
    Stolen(u64),
    /// A table whose writes fail.
    DiskFull(&'static str, Duration),
    /// The server takes no writes, as one does that became a standby.
    ReadOnly(Duration),
    /// Somebody ends all sessions of the workers.
    Terminated,
    /// A column gets another type, and prepared statements no longer fit.
    PlansGone,
    /// Somebody else locks hot rows, in the other order.
    Deadlocks(Duration),
    Relay(Whim),
    /// The relay's sequence begins again.
    Restarted,
}

/// Makes a fault of one kind.
type Make = fn(&mut StdRng) -> Fault;

const UPSTREAM: &[(&str, Make)] = &[
    ("ingest-killed", |r| Fault::Blow(Who::Ingest(which(r)), Blow::Kill, pause(r))),
    ("ingest-replaced", |r| Fault::Blow(Who::Ingest(which(r)), Blow::Replace, pause(r))),
    ("ingest-frozen", |r| Fault::Blow(Who::Ingest(which(r)), Blow::Freeze, pause(r) * 2)),
    ("redis-stopped", |r| Fault::RedisDown { kill: false, pause: pause(r) }),
    ("redis-killed", |r| Fault::RedisDown { kill: true, pause: pause(r) }),
    ("redis-frozen", |r| Fault::RedisFrozen(pause(r))),
    ("replica-promoted", |r| Fault::Promoted(pause(r) / 2)),
    ("redis-emptied", |_| Fault::RedisEmptied),
    ("redis-flushed", |_| Fault::RedisFlushed),
    ("stream-deleted", |_| Fault::StreamDeleted),
    ("ingest-redis-cut", |_| Fault::Cut(Link::IngestRedis)),
    ("ingest-redis-half-answer", |_| Fault::Trapped { link: Link::IngestRedis, holds: "ok", half: true }),
    ("ingest-redis-lost-answer", |_| Fault::Trapped { link: Link::IngestRedis, holds: "ok", half: false }),
    ("ingest-redis-slow", |r| Fault::Weather(Link::IngestRedis, Weather::Slow(late(r)), pause(r))),
    ("ingest-redis-held", |r| Fault::Weather(Link::IngestRedis, Weather::Held, pause(r))),
    ("ingest-redis-black-hole", |r| Fault::Weather(Link::IngestRedis, Weather::BlackHole, pause(r))),
    ("ingest-redis-refused", |r| Fault::Weather(Link::IngestRedis, Weather::Refusing, pause(r))),
    ("relay-close", |_| Fault::Relay(Whim::Close)),
    ("relay-cut", |_| Fault::Relay(Whim::Cut)),
    ("relay-stall", |r| Fault::Relay(Whim::Stall(pause(r) * 3))),
    ("relay-freeze", |r| Fault::Relay(Whim::Freeze(pause(r) * 3))),
    ("relay-garbage", |_| Fault::Relay(Whim::Garbage)),
    ("relay-error", |_| Fault::Relay(Whim::ErrorFrame)),
    ("relay-repeat", |r| Fault::Relay(Whim::Repeat(r.random_range(1..400)))),
    ("relay-skip", |r| Fault::Relay(Whim::Skip(r.random_range(1..60)))),
    ("relay-refuse", |r| Fault::Relay(Whim::Refuse(pause(r)))),
    ("relay-restart", |_| Fault::Restarted),
];

const DOWNSTREAM: &[(&str, Make)] = &[
    ("worker-killed", |r| Fault::Blow(Who::Worker(which(r)), Blow::Kill, pause(r))),
    ("worker-replaced", |r| Fault::Blow(Who::Worker(which(r)), Blow::Replace, pause(r))),
    ("worker-frozen", |r| Fault::Blow(Who::Worker(which(r)), Blow::Freeze, pause(r) * 2)),
    ("postgres-stopped", |r| Fault::PostgresDown { kill: false, pause: pause(r) }),
    ("postgres-killed", |r| Fault::PostgresDown { kill: true, pause: pause(r) }),
    ("workers-redis-cut", |_| Fault::Cut(Link::WorkersRedis)),
    ("workers-redis-half-answer", |_| Fault::Trapped { link: Link::WorkersRedis, holds: "", half: true }),
    ("workers-redis-lost-answer", |_| Fault::Trapped { link: Link::WorkersRedis, holds: ":", half: false }),
    ("workers-redis-lost-delivery", |_| Fault::Trapped { link: Link::WorkersRedis, holds: DELIVERY, half: false }),
    ("workers-redis-half-delivery", |_| Fault::Trapped { link: Link::WorkersRedis, holds: DELIVERY, half: true }),
    ("workers-redis-slow", |r| Fault::Weather(Link::WorkersRedis, Weather::Slow(late(r)), pause(r))),
    ("workers-redis-held", |r| Fault::Weather(Link::WorkersRedis, Weather::Held, pause(r))),
    ("workers-redis-black-hole", |r| Fault::Weather(Link::WorkersRedis, Weather::BlackHole, pause(r))),
    ("workers-redis-refused", |r| Fault::Weather(Link::WorkersRedis, Weather::Refusing, pause(r))),
    ("postgres-cut", |_| Fault::Cut(Link::Postgres)),
    ("postgres-half-answer", |_| Fault::Trapped { link: Link::Postgres, holds: "", half: true }),
    ("postgres-lost-commit", |_| Fault::Trapped { link: Link::Postgres, holds: "COMMIT", half: false }),
    ("postgres-slow", |r| Fault::Weather(Link::Postgres, Weather::Slow(late(r) / 4), pause(r))),
    ("postgres-held", |r| Fault::Weather(Link::Postgres, Weather::Held, pause(r))),
    ("postgres-black-hole", |r| Fault::Weather(Link::Postgres, Weather::BlackHole, pause(r) / 4)),
    ("postgres-refused", |r| Fault::Weather(Link::Postgres, Weather::Refusing, pause(r))),
    ("postgres-read-only", |r| Fault::ReadOnly(pause(r))),
    ("postgres-terminated", |_| Fault::Terminated),
    ("postgres-plans-gone", |_| Fault::PlansGone),
    ("redelivered", |r| Fault::Redelivered(r.random_range(1..600))),
    ("stolen", |r| Fault::Stolen(r.random_range(1..200))),
    ("disk-full", |r| Fault::DiskFull(TABLES.choose(r).unwrap(), pause(r))),
    ("deadlocks", |r| Fault::Deadlocks(pause(r))),
];

/// Kinds after which the stream is another one.
const LOSSES: [&str; 3] = ["redis-emptied", "redis-flushed", "stream-deleted"];

/// What the answer to an XREADGROUP holds, be it empty or not.
const DELIVERY: &str = "firehose:events";

/// Tables that nearly every batch writes.
const TABLES: [&str; 5] = ["likes", "posts", "feed_items", "penstock.repos", "post_aggregations"];

/// The slot of a run that is to be over soon.
pub(crate) const SLOT: Duration = Duration::from_millis(1_400);

// === impl Plan ===

impl Plan {
    pub(crate) fn of(seed: u64, size: Size) -> Self {
        let random = &mut StdRng::seed_from_u64(seed);
        let (up, down) = (size.faults.div_ceil(2), size.faults / 2);
        let seconds = (size.slot * u32::try_from(up.max(4)).unwrap()).as_secs_f64();
        let rate = (size.events as f64 / seconds).ceil() as u32;
        let mut settings = settings(random);
        // While a group of others keeps the stream nothing goes to the second one.
        let is_put_aside = seed.is_multiple_of(3);
        if is_put_aside {
            settings.push(("PENSTOCK_INGEST_REPO_EVENTS", (5 + seed % 40).to_string()));
        }
        // Most streams are held against the relay from end to end.
        let loses = random.random_ratio(1, 3);
        let left_out = |kind: &str| {
            size.without.iter().any(|without| kind.starts_with(without.as_str()))
                || !loses && LOSSES.contains(&kind)
                // Where the old sequence ended only a stream tells that has all of it.
                || is_put_aside && kind == "relay-restart"
        };
        let upstream = deal(random, up, size.slot, UPSTREAM, left_out);
        let downstream = deal(random, down, size.slot, DOWNSTREAM, left_out);
        let is_odd = !size.without.iter().any(|kind| kind == "odd");
        Self { rate, settings, is_odd, keeps_stream: !is_put_aside, upstream, downstream, size }
    }

    /// How many faults there are of each kind.
    pub(crate) fn kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for step in self.upstream.iter().chain(&self.downstream) {
            *kinds.entry(step.kind).or_default() += 1;
        }
        kinds
    }
}

/// Deals faults of all kinds as evenly as their number allows, in any order.
fn deal(
    random: &mut StdRng,
    count: usize,
    slot: Duration,
    kinds: &[(&'static str, Make)],
    left_out: impl Fn(&str) -> bool,
) -> Vec<Step> {
    let mut kinds: Vec<_> = kinds.iter().filter(|(kind, _)| !left_out(kind)).collect();
    let mut steps: Vec<Step> = Vec::new();
    while steps.len() < count && !kinds.is_empty() {
        kinds.shuffle(random);
        for (kind, make) in kinds.iter().take(count - steps.len()) {
            let at = slot * u32::try_from(steps.len()).unwrap() + random.random_range(Duration::ZERO..slot / 2);
            steps.push(Step { at, kind, fault: make(random) });
        }
    }
    steps
}

/// Small batches, and times that faults fit between.
fn settings(random: &mut StdRng) -> Vec<(&'static str, String)> {
    let mut between = |low: u64, high: u64| random.random_range(low..=high).to_string();
    vec![
        ("PENSTOCK_INGEST_BATCH_EVENTS", between(5, 150)),
        ("PENSTOCK_INGEST_BATCHES_IN_FLIGHT", between(1, 6)),
        ("PENSTOCK_INGEST_LEASE_TIME", between(300, 500) + "ms"),
        ("PENSTOCK_INGEST_TRIM_INTERVAL", between(100, 900) + "ms"),
        ("PENSTOCK_WORKER_BATCH_SIZE", between(5, 120)),
        ("PENSTOCK_WORKER_BATCH_DELAY", between(1, 30) + "ms"),
        ("PENSTOCK_WORKER_CLAIM_TIME", "400ms".to_owned()),
        ("PENSTOCK_WORKER_PUBLISH_INTERVAL", "100ms".to_owned()),
        ("PENSTOCK_WORKER_CHECKPOINT_INTERVAL", "200ms".to_owned()),
        ("PENSTOCK_WORKER_RETRY_MIN", "5ms".to_owned()),
        ("PENSTOCK_WORKER_RETRY_MAX", "200ms".to_owned()),
        ("PENSTOCK_WORKER_DELETE_BATCH", between(1, 50)),
        ("PENSTOCK_REDIS_COMMAND_TIMEOUT", "1s".to_owned()),
        ("PENSTOCK_POSTGRES_STATEMENT_TIMEOUT", "2s".to_owned()),
        ("PENSTOCK_RELAY_DATA_TIMEOUT", "1s".to_owned()),
        ("PENSTOCK_RELAY_PING_INTERVAL", "500ms".to_owned()),
        ("PENSTOCK_RELAY_CONNECT_TIMEOUT", "1s".to_owned()),
        ("PENSTOCK_RELAY_BACKOFF_MIN", "5ms".to_owned()),
        ("PENSTOCK_RELAY_BACKOFF_MAX", "200ms".to_owned()),
        ("PENSTOCK_RELAY_HEALTHY_AFTER", "1s".to_owned()),
        ("DB_POOL_SIZE", "6".to_owned()),
    ]
}

fn pause(random: &mut StdRng) -> Duration {
    random.random_range(Duration::from_millis(50)..Duration::from_millis(900))
}

fn late(random: &mut StdRng) -> Duration {
    random.random_range(Duration::from_millis(1)..Duration::from_millis(60))
}

fn which(random: &mut StdRng) -> usize {
    random.random_range(0..1_000)
}

#[test]
fn a_seed_says_everything() {
    let size = Size { events: 20_000, faults: 100, workers: 3, without: vec!["relay".to_owned()], slot: SLOT };
    let of = |seed| format!("{:?}", Plan::of(seed, size.clone()));
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
    assert!(!of(7).contains("Relay("));
}
