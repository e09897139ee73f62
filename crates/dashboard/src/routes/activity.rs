//! How many events of each kind were applied, minute by minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, HashesInterface};
use jiff::Timestamp;
use penstock_core::data::EventKind;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Mutex;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::reading;

/// How far back: 24 h.
const MINUTES: u64 = 24 * 60;

/// How long an answer is good for all clients: it costs Redis 1,440 small reads.
const FRESH: Duration = Duration::from_secs(5);

/// The last answer; whoever asks while it is made waits for it.
#[derive(Debug, Default)]
pub(crate) struct ActivityCache(Mutex<Option<(Instant, Bytes)>>);

// === impl ActivityCache ===

impl ActivityCache {
    /// Has the next answer made anew.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// One minute.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Minute {
    /// When it began, in milliseconds since the epoch.
    timestamp: u64,
    commit: u64,
    identity: u64,
    account: u64,
}

/// Registers the route.
pub(super) fn register(api: &mut Api) {
    api.get("/api/metrics/activity-history", Access::Read, history)
        .says("Gives the events of the last 24 h, minute by minute, oldest first.")
        .answers::<Vec<Minute>>("1,440 minutes")
        .tells(503, "Redis is away");
}

/// `GET /api/metrics/activity-history`: oldest first, the present minute last; minutes without events are zeros.
async fn history(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut cache = app.activity.0.lock().await;
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
    let answers: Vec<fred::types::Value> = pipeline.all().await?;
    let minutes = (first..=now).zip(answers).map(|(minute, answer)| {
        let [commit, identity, account] = reading::numbers(answer);
        Minute { timestamp: minute * 60_000, commit, identity, account }
    });
    Ok(minutes.collect())
}
