//! One look at Redis every interval and one subscription, however many clients there are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::SubscriberClient;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface, KeysInterface, PubsubInterface};
use fred::types::Message;
use jiff::Timestamp;
use penstock_core::permissions::{self, Part};
use penstock_core::redis::{self, RedisError, Subscriber};
use penstock_core::servers::{Kind, Server};
use penstock_telemetry::admin::{CheckHandle, Heartbeat};
use serde_json::value::RawValue;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::App;
use crate::live::Gathering;
use crate::reading::{self, Reading, RedisMemory};
use crate::rows::{self, Flow};
use crate::snapshot::{Snapshot, View};
use crate::system::System;

/// How long to wait before connecting anew.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is tried at least whether Redis answers again.
const REDIS: Duration = Duration::from_secs(2);

/// How long a client may fail before it is replaced by a new one, which looks the addresses up again.
const GIVE_UP: Duration = Duration::from_secs(30);

/// How often the subscription is renewed: it changes nothing, and shows a connection that died silently.
const RENEW: Duration = Duration::from_secs(15);

/// How often Redis is asked for its memory.
const MEMORY_EVERY: Duration = Duration::from_secs(5);

/// How often a sign of life is sent to the live clients.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Looks at Redis every interval until the service ends.
pub(crate) async fn watch_metrics(app: Arc<App>, heartbeat: Heartbeat) {
    let mut system = System::new(Instant::now());
    let mut flow = Flow::new(&app.settings);
    let means = "the page shows no figures until it is back";
    let server = Server::new(Kind::Redis, &app.settings.redis_url, means, REDIS);
    loop {
        match app.ending.run_until_cancelled(redis::connect_for(&app.settings, &server)).await {
            Some(Ok(client)) => {
                app.ending.run_until_cancelled(remember(&app, &client)).await;
                let look = Box::pin(look(&app, &client, &mut system, &mut flow, &heartbeat));
                app.ending.run_until_cancelled(look).await;
                let _ = client.quit().await;
            }
            Some(Err(error)) => app.lose(&error),
            None => {}
        }
        app.events.rows_age(flow.age_by_now(Instant::now()));
        heartbeat.beat();
        if app.ending.run_until_cancelled(sleep(RETRY)).await.is_none() {
            return;
        }
    }
}

/// Passes broadcasts on to the live clients until the service ends.
pub(crate) async fn pass_events(app: Arc<App>) {
    let mut lost = false;
    loop {
        match app.ending.run_until_cancelled(subscribe(&app)).await {
            Some(Ok((client, messages))) => {
                match std::mem::take(&mut lost) {
                    true => app.events.redis_found_again("subscription"),
                    false => app.events.redis_found("subscription"),
                }
                if let Some(error) = app.ending.run_until_cancelled(gather(&app, &client, messages)).await {
                    app.events.redis_lost("subscription", &error);
                    lost = true;
                }
            }
            Some(Err(error)) if !lost => {
                app.events.redis_lost("subscription", &error);
                lost = true;
            }
            Some(Err(_)) | None => {}
        }
        if app.ending.run_until_cancelled(sleep(RETRY)).await.is_none() {
            return;
        }
    }
}

/// Tells in the log and in `/readyz` what the user of Redis lacks, until the service ends.
pub(crate) async fn watch_permissions(app: Arc<App>, check: CheckHandle) {
    // Without Redis there is nothing to ask, and no reason to be unfit.
    check.ok();
    loop {
        let client = app.ending.run_until_cancelled(redis::connect(&app.settings)).await;
        if let Some(Ok(client)) = client {
            let parts: &[Part] = match &app.messages {
                Some(_) => &[Part::Dashboard, Part::MessageBuffer],
                None => &[Part::Dashboard],
            };
            let watch = permissions::watch(&app.settings, &client, parts, |lacking| {
                app.lacking.send_replace(lacking.clone());
                match lacking {
                    Some(lacking) => check.failing(lacking),
                    None => check.ok(),
                }
            });
            app.ending.run_until_cancelled(watch).await;
            let _ = timeout(RETRY, client.quit()).await;
        }
        if app.ending.run_until_cancelled(sleep(RETRY)).await.is_none() {
            return;
        }
    }
}

/// Sends signs of life to the live clients until the service ends.
pub(crate) async fn keep_alive(app: Arc<App>) {
    let mut ticks = interval(KEEP_ALIVE);
    while app.ending.run_until_cancelled(ticks.tick()).await.is_some() {
        app.hub.keep_alive();
    }
}

/// Takes over the events that came before this process: its clients may have seen them from another one.
async fn remember(app: &App, client: &fred::clients::Client) {
    let ask = client.with_options(&reading::options(app.settings.redis.command_timeout));
    let kept: Option<String> = ask.get(app.settings.keys.recent_events()).await.unwrap_or_default();
    // Newest first.
    let events: Vec<&RawValue> = kept.as_deref().and_then(|kept| serde_json::from_str(kept).ok()).unwrap_or_default();
    let mut gathering = Gathering::default();
    events.iter().rev().for_each(|event| gathering.add(event.get().as_bytes()));
    app.hub.came_before(&mut gathering);
}

/// Looks until the client has failed for too long.
async fn look(app: &App, client: &fred::clients::Client, system: &mut System, flow: &mut Flow, heartbeat: &Heartbeat) {
    let mut ticks = interval(app.settings.dashboard.metrics_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing_since = None;
    let mut memory = RedisMemoryLook::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.look_now.notified() => {}
        }
        heartbeat.beat();
        let read = async {
            let reading = reading::read(client, &app.settings.keys, app.settings.redis.command_timeout).await?;
            let seen = rows::ask(client, &app.settings).await?;
            let lacking = app.lacking.borrow().clone().or_else(|| reading.ingest.lacking.clone());
            Ok((Reading { memory: memory.look(app, client).await, lacking, ..reading }, seen))
        };
        let read: Result<_, Error> = read.await;
        let now = Instant::now();
        let requests = app.requests.last_minute(now);
        let snapshot = read.map(|(reading, seen)| {
            remember_totals(app, &reading, seen.as_ref().and_then(|seen| seen.added));
            let reconnect_delay = app.settings.relay.backoff_min;
            let stream_cap = app.settings.redis.max_stream_len;
            let rows = flow.look(seen.as_ref(), *app.database.borrow(), now);
            Snapshot::new(reading, rows, &system.look(now), requests, reconnect_delay, stream_cap, Timestamp::now())
        });
        app.events.rows_age(flow.age_by_now(now));
        match snapshot {
            Ok(Ok(snapshot)) => {
                failing_since = None;
                app.hub.metrics(&snapshot.metrics);
                app.find(View::Clear { client: client.clone(), snapshot: Arc::new(snapshot) });
            }
            Ok(Err(error)) => app.lose(&error),
            Err(error) => {
                app.lose(&error);
                if now.duration_since(*failing_since.get_or_insert(now)) > GIVE_UP {
                    return;
                }
            }
        }
    }
}

/// Keeps the totals for the finest chart.
fn remember_totals(app: &App, reading: &Reading, added: Option<u64>) {
    let at = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    if let Ok(mut recent) = app.recent.lock() {
        recent.take(at, added, [reading.commits, reading.identities, reading.accounts]);
    }
}

/// Asks for the memory of Redis now and then.
#[derive(Default)]
struct RedisMemoryLook {
    asked: Option<Instant>,
    found: Option<RedisMemory>,
}

impl RedisMemoryLook {
    /// Returns the memory; none where Redis does not tell. A user of Redis may lack the right to ask: that is no error.
    async fn look(&mut self, app: &App, client: &fred::clients::Client) -> Option<RedisMemory> {
        if self.asked.is_some_and(|asked| asked.elapsed() < MEMORY_EVERY) {
            return self.found;
        }
        let asked = timeout(app.settings.redis.command_timeout, redis::memory(client, app.settings.keys.stream()));
        let told = asked.await.ok().and_then(Result::ok).filter(|memory| memory.used > 0);
        self.asked = Some(Instant::now());
        self.found = told.map(|memory| RedisMemory { used_bytes: memory.used, max_bytes: memory.max });
        self.found
    }
}

async fn subscribe(app: &App) -> Result<(Subscriber, Receiver<Message>), RedisError> {
    let client = redis::connect_subscriber(&app.settings).await?;
    let messages = client.message_rx();
    let subscribed = client.subscribe(app.settings.keys.broadcast()).await;
    subscribed.map_err(|source| RedisError::Ask {
        url: app.settings.redis_url.to_string(),
        what: "a subscription",
        source,
    })?;
    Ok((client, messages))
}

/// Gathers broadcasts and sends them on, until the subscription fails.
async fn gather(app: &App, client: &SubscriberClient, mut messages: Receiver<Message>) -> Error {
    let mut gathering = Gathering::default();
    let mut due = tokio::time::Instant::now();
    let mut renewals = interval(RENEW);
    loop {
        tokio::select! {
            message = messages.recv(), if !gathering.is_full() => match message {
                // Also while nobody looks: whoever comes back asks for what came meanwhile.
                Ok(message) => message.value.as_bytes().into_iter().for_each(|bytes| gathering.add(bytes)),
                Err(RecvError::Lagged(count)) => app.events.broadcasts_missed(count),
                Err(RecvError::Closed) => return Error::new(fred::error::ErrorKind::Canceled, "the client was closed"),
            },
            () = sleep_until(due), if !gathering.is_empty() => {
                app.hub.gathered(&mut gathering);
                due = tokio::time::Instant::now() + app.hub.gathering_time();
            }
            _ = renewals.tick() => {
                if let Err(error) = client.subscribe(app.settings.keys.broadcast()).await {
                    return error;
                }
            }
        }
    }
}
