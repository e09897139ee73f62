//! Situations of a pipeline, for tests of what is said and drawn of them.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::{Checks, DeadLetter, DeadLetters, Event, FirehoseStatus, Flow, Ingest, Metrics, Ready, Stats, Worker};
use crate::state::{Link, State, Update};
use crate::verdict::{Level, verdict};

/// What differs from a pipeline on which all is well.
#[derive(Clone, Debug)]
pub(crate) struct Situation {
    pub(crate) link: Link,
    pub(crate) metrics: Metrics,
    pub(crate) ingest: Option<Ingest>,
    pub(crate) workers: Option<Vec<Worker>>,
    pub(crate) ready: Option<Ready>,
    /// Events applied between looks.
    pub(crate) step: u64,
    /// How many looks there were, 2 s from each other.
    pub(crate) looks: u64,
    /// How old the last one is.
    pub(crate) old: Duration,
}

impl Default for Situation {
    fn default() -> Self {
        let worker = |name: &str| Worker {
            name: name.to_owned(),
            idle_seconds: 0.1,
            pending: 40,
            alive: true,
            entries_per_second: Some(250.0),
        };
        let status = FirehoseStatus {
            connected: true,
            url: "wss://relay.test".to_owned(),
            current_cursor: Some("1000".to_owned()),
            queue_depth: 80,
            stream_length: 1_234,
            dead_letter_length: 2,
        };
        let stats = Stats { total_posts: 1_000_000, total_likes: 234_567, ..Stats::default() };
        Self {
            link: Link::Open,
            metrics: Metrics {
                events_processed: 5_000,
                db_records: 1_234_567,
                stats,
                firehose_status: status,
                redis_lacking: None,
                error_rate: 0.01,
                last_update: String::new(),
                rows_age_seconds: Some(Some(0.8)),
                flow: Some(Flow {
                    waiting: Some(120),
                    waiting_exact: true,
                    quiet_seconds: Some(0.1),
                    incoming_per_second: Some(501.0),
                    written_per_second: Some(498.0),
                    drain_seconds: Some(0.0),
                    workers_alive: Some(2),
                    database: "writing".to_owned(),
                    ..Flow::default()
                }),
            },
            ingest: Some(Ingest { lag_seconds: Some(0.4), stream_cap: Some(500_000), ..Ingest::default() }),
            workers: Some(vec![worker("bluesky-worker-5d8f-a"), worker("bluesky-worker-5d8f-b")]),
            ready: Some(Ready {
                status: "ready".to_owned(),
                checks: Checks { firehose: "connected".into(), database: "healthy".into(), memory: "ok".into() },
            }),
            step: 1_000,
            looks: 6,
            old: Duration::from_secs(1),
        }
    }
}

impl Situation {
    /// Plays it, and returns what is known then.
    pub(crate) fn play(&self) -> (State, Instant) {
        let (start, mut state) = (Instant::now(), State::default());
        let mut at = start;
        for look in 0..self.looks {
            at = start + Duration::from_secs(2 * look);
            let mut metrics = self.metrics.clone();
            metrics.events_processed += look * self.step;
            metrics.db_records += look * self.step;
            metrics.last_update = look.to_string();
            let cursor = &mut metrics.firehose_status.current_cursor;
            *cursor = cursor.take().map(|from| (from.parse::<u64>().unwrap() + look * self.step).to_string());
            state.apply(Update::Metrics(Box::new(metrics)), at);
        }
        for letter in 0..2 {
            let error = Some("value too long for type character varying(512)".to_owned());
            let letter = DeadLetter {
                id: format!("17000{letter}-0"),
                kind: "commit".into(),
                repo: Some("did:plc:a".into()),
                seq: "77".into(),
                error,
            };
            state.apply(Update::Letters(Ok(DeadLetters { items: vec![letter] })), at);
        }
        for number in 0..30 {
            let lexicon = if number % 3 == 0 { "app.bsky.feed.post" } else { "app.bsky.feed.like" };
            state.apply(
                Update::Event(Event {
                    kind: "#commit".into(),
                    lexicon: lexicon.into(),
                    did: format!("did:plc:{number:024}"),
                    action: "create".into(),
                    timestamp: format!("12:00:{number:02}"),
                }),
                at,
            );
        }
        let missing = || "redis does not answer".to_owned();
        state.apply(Update::Ingest(self.ingest.clone().ok_or_else(missing)), at);
        state.apply(Update::Workers(self.workers.clone().ok_or_else(missing)), at);
        state.apply(Update::Ready(self.ready.clone().ok_or_else(missing)), at);
        state.apply(Update::Link(self.link.clone()), at);
        (state, at + self.old)
    }
}

/// Every situation with a name, and what is said of it: those that a dashboard's page is in as well, and then some.
pub(crate) fn all() -> Vec<(String, Situation, Level, String)> {
    let with = |change: &dyn Fn(&mut Situation)| {
        let mut situation = Situation::default();
        change(&mut situation);
        situation
    };
    let lost = || Link::Lost("could not connect: Connection refused".to_owned());
    let redis = || Link::Lost("redis does not answer".to_owned());
    let unfit = || Ready { checks: Checks { database: "unhealthy".into(), ..Checks::default() }, ..Ready::default() };
    let current = "Current: rows 0.8 s behind";
    let ours = [
        ("all is well", with(&|_| {}), Level::Good, current),
        ("first figures", with(&|s| s.looks = 1), Level::Good, current),
        (
            "nothing is told beside the figures",
            with(&|s| (s.workers, s.ready, s.ingest) = (None, None, None)),
            Level::Good,
            current,
        ),
        (
            "no figures yet",
            with(&|s| {
                (s.looks, s.link) = (0, Link::Connecting);
                (s.ingest, s.workers, s.ready) = (Some(Ingest::default()), Some(vec![]), Some(Ready::default()));
            }),
            Level::Unknown,
            "Connecting",
        ),
        ("dashboard away from the start", with(&|s| (s.looks, s.link) = (0, lost())), Level::Down, "No metrics yet"),
        ("redis away from the start", with(&|s| (s.looks, s.link) = (0, redis())), Level::Down, "Redis not responding"),
        (
            "dashboard gone",
            with(&|s| (s.link, s.old) = (lost(), Duration::from_secs(12))),
            Level::Down,
            "Stale: last update 12 s ago",
        ),
        (
            "dashboard sends nothing",
            with(&|s| s.old = Duration::from_secs(9)),
            Level::Down,
            "Stale: last update 9 s ago",
        ),
        (
            "dashboard sends nothing, because redis is away",
            with(&|s| (s.old, s.workers) = (Duration::from_secs(9), None)),
            Level::Down,
            "Redis not responding",
        ),
        ("dashboard gone this moment", with(&|s| s.link = lost()), Level::Good, current),
        (
            "token needed",
            with(&|s| (s.looks, s.link) = (0, Link::Refused("it needs a token".into()))),
            Level::Down,
            "No access",
        ),
        (
            "another dashboard that tells no age",
            with(&|s| (s.metrics.rows_age_seconds, s.metrics.flow) = (None, None)),
            Level::Unknown,
            "Age of rows unknown",
        ),
        (
            "another dashboard, and all workers are gone",
            with(&|s| {
                (s.metrics.rows_age_seconds, s.metrics.flow) = (None, None);
                s.workers.iter_mut().flatten().for_each(|worker| worker.alive = false);
            }),
            Level::Down,
            "No workers running",
        ),
        (
            "another dashboard, and nothing is applied for 28 s",
            with(&|s| {
                (s.metrics.rows_age_seconds, s.metrics.flow) = (None, None);
                (s.step, s.looks) = (0, 15);
            }),
            Level::Down,
            "Workers stalled",
        ),
        (
            "another dashboard, and postgres is away",
            with(&|s| {
                (s.metrics.rows_age_seconds, s.metrics.flow) = (None, None);
                s.ready = Some(unfit());
            }),
            Level::Down,
            "PostgreSQL not responding",
        ),
        (
            "memory full",
            with(&|s| {
                s.ready.iter_mut().for_each(|ready| ready.checks.memory = "critical".into());
            }),
            Level::Degraded,
            "Memory is nearly full",
        ),
    ];
    let ours =
        ours.into_iter().map(|(name, situation, level, said)| (name.to_owned(), situation, level, said.to_owned()));
    ours.chain(shared()).collect()
}

/// The situations that the page's tests read too, with what both say.
fn shared() -> Vec<(String, Situation, Level, String)> {
    let shared: Value = serde_json::from_str(include_str!("situations.json")).unwrap();
    let situations = shared["situations"].as_array().unwrap().iter();
    let read = situations.map(|situation| {
        let known = |part: &str| {
            let mut known = shared[part].clone();
            change(&mut known, &situation[part]);
            known
        };
        let played = Situation {
            metrics: serde_json::from_value(known("metrics")).unwrap(),
            ingest: Some(serde_json::from_value(known("ingest")).unwrap()),
            ready: Some(serde_json::from_value(known("ready")).unwrap()),
            // What the page goes by is told by the dashboard, not by what moves from look to look.
            step: 0,
            ..Situation::default()
        };
        let level = match situation["tone"].as_str().unwrap() {
            "good" => Level::Good,
            // Nothing to do is good; that nothing ever came is not known to be.
            "idle" if situation["headline"] == "Quiet" => Level::Good,
            "idle" | "unknown" => Level::Unknown,
            "warn" => Level::Degraded,
            "bad" => Level::Down,
            other => panic!("{other}"),
        };
        let text = |field: &str| situation[field].as_str().unwrap().to_owned();
        (text("name"), played, level, text("headline"))
    });
    read.collect()
}

/// Puts differences into a value.
fn change(value: &mut Value, differences: &Value) {
    let Value::Object(differences) = differences else { return };
    for (name, different) in differences {
        match different {
            Value::Object(_) => change(&mut value[name], different),
            other => value[name] = other.clone(),
        }
    }
}

/// The first words of what the page says below the headline.
#[test]
fn the_shared_situations_are_explained_as_the_page_does() {
    let shared_file: Value = serde_json::from_str(include_str!("situations.json")).unwrap();
    let situations = shared_file["situations"].as_array().unwrap();
    assert!(situations.len() >= 20, "{}", situations.len());
    for (situation, (name, played, ..)) in situations.iter().zip(shared()) {
        let (state, now) = played.play();
        let said = verdict(&state, now);
        let why = situation["why"].as_str().unwrap();
        assert!(said.why.starts_with(why), "{name}: {said:?}");
    }
}

#[test]
fn every_situation_is_told_and_what_is_not_known_is_never_good() {
    for (name, situation, level, headline) in all() {
        let (state, now) = situation.play();
        let said = verdict(&state, now);
        assert_eq!((said.level, said.headline.as_str()), (level, headline.as_str()), "{name}: {said:?}");
        assert!(said.why.ends_with('.'), "{name}: {said:?}");
        assert!(said.findings.windows(2).all(|pair| pair[0].level >= pair[1].level), "{name}: {said:?}");
        let steps = crate::verdict::stages(&state, now);
        let worst = steps.iter().map(|stage| stage.level).max();
        if level == Level::Good {
            assert_eq!(worst, Some(Level::Good), "{name}");
        } else if name != "memory full" {
            assert!(worst > Some(Level::Good), "{name}: green although {headline}");
        }
    }
}
