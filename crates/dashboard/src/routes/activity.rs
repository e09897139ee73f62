//! How many events of each kind were applied, minute by minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, HashesInterface, ListInterface};
use fred::types::Value;
use jiff::Timestamp;
use penstock_core::data::EventKind;
use penstock_core::live::INCOMING;
use penstock_core::starts::{self, Started};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::activity::{self, Counts, Minutes, Point};
use crate::reading;

/// How far back: 24 h.
const MINUTES: u64 = 24 * 60;

/// How long an answer is good for all clients: it costs Redis 1,440 small reads.
const FRESH: Duration = Duration::from_secs(5);

/// The longest range of `GET /api/activity`, in seconds: 90 days, the longest retention.
const LONGEST: u64 = 90 * 86_400;

/// How many minutes one round trip asks for.
const AT_ONCE: usize = 500;

/// A range up to this is answered in finer points where they are remembered, in seconds.
const FINE: u64 = 900;

const NO_SECONDS: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "seconds must be an integer from 60 to 7776000 (90 days)");
const NO_UNTIL: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "until must be a time in whole seconds since the epoch");
const NO_QUERY: Problem =
    Problem::new(StatusCode::BAD_REQUEST, "only seconds and until are allowed in the query, each once");

/// The last answer; whoever asks while it is made waits for it.
#[derive(Debug, Default)]
pub(crate) struct ActivityCache {
    day: Mutex<Option<(Instant, Bytes)>>,
    known: Mutex<Known>,
}

/// What `GET /api/activity` remembers: a minute that is over does not change, so it is read once.
#[derive(Debug, Default)]
struct Known {
    minutes: Minutes,
    read: Option<Instant>,
    /// The first minute that was asked for.
    first: Option<u64>,
    marks: Vec<Mark>,
}

/// What came in and what was applied over a range of time.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Activity<'k> {
    /// How long minutes are kept, in seconds: `redis.activityRetention`.
    kept_seconds: u64,
    /// Oldest first.
    points: Vec<Point>,
    /// Starts of services within the range, oldest first.
    marks: Vec<&'k Mark>,
}

/// A service began.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "ActivityMark")]
struct Mark {
    /// When, in milliseconds since the epoch.
    timestamp: u64,
    /// `ingest` or `worker`.
    service: String,
    /// The name of the process.
    instance: String,
    version: String,
}

/// The query of `GET /api/activity`.
#[derive(Deserialize)]
struct Asked {
    seconds: Option<String>,
    until: Option<String>,
}

// === impl ActivityCache ===

impl ActivityCache {
    /// Has the next answer made anew.
    pub(super) async fn forget(&self) {
        *self.day.lock().await = None;
        let mut known = self.known.lock().await;
        (known.minutes, known.read, known.first) = (Minutes::default(), None, None);
    }
}

/// One minute.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Minute {
    /// Start of the minute, in milliseconds since the epoch.
    timestamp: u64,
    commit: u64,
    identity: u64,
    account: u64,
}

/// Registers the route.
pub(super) fn register(api: &mut Api) {
    api.get("/api/metrics/activity-history", Access::Read, history)
        .says("Returns the number of events per minute over the last 24 h, oldest first.")
        .answers::<Vec<Minute>>("1,440 minutes")
        .tells(503, "Redis is unavailable");
    api.get("/api/activity", Access::Read, range)
        .says("Returns what came in and what was applied per second over a range of time, in at most about 750 points, and when services started.")
        .query("seconds", "integer", "length of the range, 60 to 7776000; default 86400")
        .query("until", "integer", "end of the range, in seconds since the epoch; default now")
        .answers::<Activity>("the range; times without data are null")
        .tells(400, "a parameter is not allowed")
        .tells(503, "Redis is unavailable");
}

/// `GET /api/activity`.
async fn range(State(app): State<Arc<App>>, asked: Result<Query<Asked>, QueryRejection>) -> Result<Response, Problem> {
    let Query(Asked { seconds, until }) = asked.map_err(|_| NO_QUERY)?;
    let seconds: u64 = seconds.map_or(Ok(86_400), |seconds| seconds.parse().map_err(|_| NO_SECONDS))?;
    if !(60..=LONGEST).contains(&seconds) {
        return Err(NO_SECONDS);
    }
    let until: Option<u64> = until.map(|until| until.parse().map_err(|_| NO_UNTIL)).transpose()?;
    let mut known = app.activity.known.lock().await;
    // Asked first: what was true some time ago is not shown while Redis is away.
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let now = now_ms / 1000;
    let until = until.unwrap_or(now).min(now);
    let from = until.saturating_sub(seconds);
    let kept = app.settings.redis.activity_retention.as_secs();
    learn(&app, &client, &mut known, from.max(now.saturating_sub(kept)) / 60, now / 60)
        .await
        .map_err(|error| super::refused(&app.events, "activity", &error))?;
    let mut points = Vec::new();
    let mut coarse_until = until;
    let fine_since = app.recent.lock().ok().and_then(|recent| recent.since());
    if seconds <= FINE
        && let Some(since) = fine_since
        && since < until * 1000
    {
        coarse_until = coarse_until.min(since / 1000 / 60 * 60);
        points = app.recent.lock().map(|recent| recent.points(from * 1000, until * 1000)).unwrap_or_default();
    }
    if from < coarse_until {
        points.splice(0..0, known.minutes.points(from, coarse_until, now, activity::step(seconds)));
    }
    let within = |mark: &&Mark| (from * 1000..=until * 1000 + 999).contains(&mark.timestamp);
    let marks = known.marks.iter().filter(within).collect();
    super::answer(&Activity { kept_seconds: kept, points, marks })
}

/// Reads the minutes that are not known yet, or may still grow, and the starts of services.
async fn learn(app: &App, client: &Client, known: &mut Known, first: u64, now: u64) -> Result<(), Error> {
    // One more, which tells whether the first one is whole.
    let first = first.saturating_sub(1);
    let is_fresh = known.read.is_some_and(|read| read.elapsed() < FRESH);
    if is_fresh && known.first.is_some_and(|known| known <= first) {
        return Ok(());
    }
    let options = reading::options(app.settings.redis.command_timeout);
    let kinds = [EventKind::Commit, EventKind::Identity, EventKind::Account].map(EventKind::as_str);
    let fields = [kinds[0], kinds[1], kinds[2], INCOMING];
    for some in known.minutes.wanted(first, now).chunks(AT_ONCE) {
        let pipeline = client.pipeline();
        let ask = pipeline.with_options(&options);
        for minute in some {
            let () = ask.hmget(app.settings.keys.activity(*minute), fields.to_vec()).await?;
        }
        let answers: Vec<Value> = pipeline.all().await?;
        for (minute, answer) in some.iter().zip(answers) {
            known.minutes.take(*minute, counts(answer));
        }
    }
    known.minutes.are_read(now);
    let kept = app.settings.redis.activity_retention.as_secs() / 60;
    known.minutes.forget_before(now.saturating_sub(kept + 2));
    let starts: Vec<String> = client.with_options(&options).lrange(app.settings.keys.starts(), 0, -1).await?;
    known.marks = starts::read(&starts).into_iter().map(Mark::from).collect();
    known.marks.sort_by_key(|mark| mark.timestamp);
    known.read = Some(Instant::now());
    known.first = Some(known.first.map_or(first, |known| known.min(first)));
    Ok(())
}

/// Reads the counts of a minute; none where nobody counted in it.
fn counts(answer: Value) -> Option<Counts> {
    let fields = answer.into_array();
    if fields.iter().all(Value::is_null) {
        return None;
    }
    let incoming = fields.get(3).and_then(Value::as_u64);
    Some(Counts { incoming, applied: reading::numbers(Value::Array(fields)) })
}

impl From<Started> for Mark {
    fn from(Started { at, service, instance, version }: Started) -> Self {
        Self { timestamp: at, service, instance, version }
    }
}

/// `GET /api/metrics/activity-history`: oldest first, the present minute last; minutes without events are zeros.
async fn history(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut cache = app.activity.day.lock().await;
    // Asked first: what was true some seconds ago is not shown while Redis is away.
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    if let Some((made, body)) = &*cache
        && made.elapsed() < FRESH
    {
        return Ok(super::json(body.clone()));
    }
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0) / 60;
    let minutes = read(&app, &client, now).await.map_err(|_| Problem::REDIS_AWAY)?;
    let body = super::write(&minutes)?;
    *cache = Some((Instant::now(), body.clone()));
    Ok(super::json(body))
}

async fn read(app: &App, client: &Client, now: u64) -> Result<Vec<Minute>, Error> {
    let pipeline = client.pipeline();
    let ask = pipeline.with_options(&reading::options(app.settings.redis.command_timeout));
    let first = (now + 1).saturating_sub(MINUTES);
    let fields = [EventKind::Commit, EventKind::Identity, EventKind::Account].map(EventKind::as_str);
    for minute in first..=now {
        let () = ask.hmget(app.settings.keys.activity(minute), fields.to_vec()).await?;
    }
    let answers: Vec<Value> = pipeline.all().await?;
    let minutes = (first..=now).zip(answers).map(|(minute, answer)| {
        let [commit, identity, account] = reading::numbers(answer);
        Minute { timestamp: minute * 60_000, commit, identity, account }
    });
    Ok(minutes.collect())
}
