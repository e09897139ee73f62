//! Who works: the consumers of the group, and how fast each applies entries.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, KeysInterface, StreamsInterface};
use fred::types::Value;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Mutex;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::reading;

/// How long an answer is good for all clients.
const FRESH: Duration = Duration::from_secs(1);

/// Over how long a rate is taken at most; what was counted before says nothing of now.
const OLDEST: Duration = Duration::from_secs(30);

/// How many consumers are listed at most.
const MOST: usize = 1000;

/// The last answer, and what it was made of; whoever asks while it is made waits for it.
#[derive(Debug, Default)]
pub(crate) struct Roster(Mutex<Option<Look>>);

/// What was seen at one moment.
#[derive(Debug)]
struct Look {
    at: Instant,
    /// Entries that each worker has applied, as far as it says.
    applied: HashMap<String, u64>,
    answer: Bytes,
}

/// One worker.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Worker {
    /// Its name in the consumer group.
    name: String,
    /// Time since it last asked for entries, in seconds.
    idle_seconds: f64,
    /// Entries delivered to it but not acknowledged.
    pending: u64,
    /// Whether it has been active recently.
    alive: bool,
    /// Entries applied per second since the previous sample; null if unknown.
    entries_per_second: Option<f64>,
}

/// One consumer, as Redis tells it.
struct Consumer {
    name: String,
    idle: Duration,
    pending: u64,
    /// Whether it said within its claim time that it lives.
    announced: bool,
    applied: Option<u64>,
}

/// Registers the route.
pub(super) fn register(api: &mut Api) {
    api.get("/api/workers", Access::Read, workers)
        .says("Lists the workers: the consumers of the group, by name.")
        .answers::<Vec<Worker>>("the workers; empty before the first one starts")
        .tells(503, "Redis is unavailable");
}

async fn workers(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut last = app.roster.0.lock().await;
    // Asked first: what was true some time ago is not shown while Redis is away.
    let (client, snapshot) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    if let Some(look) = &*last
        && look.at.elapsed() < FRESH
    {
        return Ok(super::json(look.answer.clone()));
    }
    let consumers = read(&app, &client).await.map_err(|error| super::refused(&app.events, "workers", &error))?;
    let at = Instant::now();
    let before = last.as_ref().map(|look| (at.duration_since(look.at), &look.applied));
    let claim_time = app.settings.worker.claim_time;
    let workers: Vec<_> =
        consumers.iter().map(|consumer| consumer.shown(claim_time, before, &snapshot.rows.gone)).collect();
    let answer = super::write(&workers)?;
    let applied = consumers.into_iter().filter_map(|consumer| Some((consumer.name, consumer.applied?))).collect();
    *last = Some(Look { at, applied, answer: answer.clone() });
    Ok(super::json(answer))
}

async fn read(app: &App, client: &Client) -> Result<Vec<Consumer>, Error> {
    let keys = &app.settings.keys;
    let options = reading::options(app.settings.redis.command_timeout);
    let listed = client.with_options(&options).xinfo_consumers(keys.stream(), keys.group()).await;
    let listed: Vec<HashMap<String, Value>> = match listed {
        // Before the first worker there is no group, and before the first event no stream.
        Err(error) if error.details().contains("NOGROUP") || error.details().contains("no such key") => {
            return Ok(Vec::new());
        }
        listed => listed?,
    };
    let number = |of: &HashMap<String, Value>, name| of.get(name).and_then(Value::as_u64).unwrap_or(0);
    let name = |of: &HashMap<String, Value>| of.get("name").and_then(Value::as_string);
    let pipeline = client.pipeline();
    let ask = pipeline.with_options(&options);
    let mut consumers = Vec::new();
    for of in listed.into_iter().take(MOST) {
        let Some(name) = name(&of) else { continue };
        let () = ask.exists(keys.consumer_alive(&name)).await?;
        let () = ask.get(keys.consumer_applied(&name)).await?;
        let idle = Duration::from_millis(number(&of, "idle"));
        consumers.push(Consumer { name, idle, pending: number(&of, "pending"), announced: false, applied: None });
    }
    if !consumers.is_empty() {
        let told: Vec<Value> = pipeline.all().await?;
        for (consumer, told) in consumers.iter_mut().zip(told.chunks(2)) {
            consumer.announced = told.first().and_then(Value::as_u64) == Some(1);
            consumer.applied = told.get(1).and_then(Value::as_u64);
        }
    }
    consumers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(consumers)
}

// === impl Consumer ===

impl Consumer {
    /// Shows it, with what all had applied some time before.
    fn shown(
        &self,
        claim_time: Duration,
        before: Option<(Duration, &HashMap<String, u64>)>,
        gone: &HashSet<String>,
    ) -> Worker {
        let rate = before.filter(|(ago, _)| !ago.is_zero() && *ago <= OLDEST).and_then(|(ago, applied)| {
            let since = self.applied?.checked_sub(*applied.get(&self.name)?)?;
            Some((since as f64 / ago.as_secs_f64() * 10.0).round() / 10.0)
        });
        Worker {
            name: self.name.clone(),
            idle_seconds: (self.idle.as_secs_f64() * 10.0).round() / 10.0,
            pending: self.pending,
            // Workers of others do not announce themselves; those that live ask for entries every few seconds.
            alive: (self.announced || self.idle < claim_time) && !gone.contains(&self.name),
            entries_per_second: rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_only_where_it_is_known() {
        let consumer = |applied| {
            let (idle, name) = (Duration::from_millis(1234), "w-0".to_owned());
            Consumer { name, idle, pending: 3, announced: false, applied }
        };
        let applied = HashMap::from([("w-0".to_owned(), 100)]);
        let rate = |now, ago| {
            let shown = consumer(now).shown(
                Duration::from_secs(60),
                Some((Duration::from_secs(ago), &applied)),
                &HashSet::new(),
            );
            shown.entries_per_second
        };
        assert_eq!(rate(Some(150), 4), Some(12.5));
        assert_eq!(rate(Some(100), 4), Some(0.0));
        assert_eq!([rate(Some(99), 4), rate(None, 4), rate(Some(150), 31), rate(Some(150), 0)], [None; 4]);
        let shown = consumer(Some(1)).shown(Duration::from_secs(60), None, &HashSet::new());
        assert_eq!((shown.entries_per_second, shown.idle_seconds, shown.alive), (None, 1.2, true));
        let alive = |announced, gone: &[&str]| {
            let gone = gone.iter().map(|name| (*name).to_owned()).collect();
            Consumer { announced, ..consumer(None) }.shown(Duration::from_secs(1), None, &gone).alive
        };
        assert_eq!([alive(false, &[]), alive(true, &[]), alive(true, &["w-0"])], [false, true, false]);
    }
}
