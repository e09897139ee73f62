//! One look at Redis every interval and one subscription, however many clients there are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::SubscriberClient;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface, KeysInterface, PubsubInterface};
use fred::types::Message;
use jiff::Timestamp;
use penstock_core::redis::{self, RedisError};
use penstock_telemetry::admin::Heartbeat;
use serde_json::value::RawValue;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use crate::App;
use crate::live::Gathering;
use crate::reading;
use crate::snapshot::{Snapshot, View};
use crate::system::System;

/// How long to wait before connecting anew.
const RETRY: Duration = Duration::from_secs(1);

/// How long a client may fail before it is replaced by a new one, which looks the addresses up again.
const GIVE_UP: Duration = Duration::from_secs(30);

/// How often the subscription is renewed: it changes nothing, and shows a connection that died silently.
const RENEW: Duration = Duration::from_secs(15);

/// How often a sign of life is sent to the live clients.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Looks at Redis every interval until the service ends.
pub(crate) async fn watch_metrics(app: Arc<App>, heartbeat: Heartbeat) {
    let mut system = System::new(Instant::now());
    loop {
        match app.ending.run_until_cancelled(redis::connect(&app.settings)).await {
            Some(Ok(client)) => {
                app.ending.run_until_cancelled(remember(&app, &client)).await;
                app.ending.run_until_cancelled(look(&app, &client, &mut system, &heartbeat)).await;
                let _ = client.quit().await;
            }
            Some(Err(error)) => app.lose(&error),
            None => {}
        }
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
                app.events.redis_found("subscription");
                lost = false;
                if let Some(error) = app.ending.run_until_cancelled(gather(&app, &client, messages)).await {
                    app.events.redis_lost("subscription", &error);
                    lost = true;
                }
                let _ = client.quit().await;
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
async fn look(app: &App, client: &fred::clients::Client, system: &mut System, heartbeat: &Heartbeat) {
    let mut ticks = interval(app.settings.dashboard.metrics_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing_since = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.look_now.notified() => {}
        }
        heartbeat.beat();
        let read = reading::read(client, &app.settings.keys, app.settings.redis.command_timeout).await;
        let now = Instant::now();
        let requests = app.requests.last_minute(now);
        let snapshot = read.map(|reading| {
            let reconnect_delay = app.settings.relay.backoff_min;
            Snapshot::new(reading, &system.look(now), requests, reconnect_delay, Timestamp::now())
        });
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

async fn subscribe(app: &App) -> Result<(SubscriberClient, Receiver<Message>), RedisError> {
    let client = redis::connect_subscriber(&app.settings).await?;
    let messages = client.message_rx();
    match client.subscribe(app.settings.keys.broadcast()).await {
        Ok(()) => Ok((client, messages)),
        Err(source) => {
            let _ = client.quit().await;
            Err(RedisError::Ask { url: app.settings.redis_url.to_string(), what: "a subscription", source })
        }
    }
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
                Err(RecvError::Closed) => return Error::new(fred::error::ErrorKind::Canceled, "the client ended"),
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
