//! One reader of the statistics and one subscription, however many clients watch.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::error::Error;
use fred::interfaces::{EventInterface, PubsubInterface};
use fred::types::Message;
use jiff::Timestamp;
use penstock_core::redis::{self, RedisError, Subscriber};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Messages;
use super::queue::Queue;
use super::sockets::Sockets;
use super::stats::{Persisted, Stats, StatsFrame};
use crate::App;

/// How long to wait before connecting anew.
const RETRY: Duration = Duration::from_secs(1);

/// How often the subscription is renewed: it changes nothing, and shows a connection that died silently.
const RENEW: Duration = Duration::from_secs(15);

/// Reads the statistics each interval while anybody watches, and sends them to all, until the service ends.
pub(crate) async fn watch_stats(app: Arc<App>) {
    let Some(Messages { sockets, newest, .. }) = &app.messages else { return app.ending.cancelled().await };
    let mut ticks = interval(app.settings.message_buffer.stats_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    while app.ending.run_until_cancelled(ticks.tick()).await.is_some() {
        // Without Redis nothing is told rather than what was true some time ago.
        let Some((client, _)) = app.client_and_snapshot().filter(|_| sockets.clients() > 0) else { continue };
        match Queue::new(&client, &app.settings).stats(0).await {
            Ok((stats, _)) => {
                failing = false;
                send(sockets, &stats, None);
                newest.send_replace(stats);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    app.events.redis_refused("statistics of messages", &error);
                }
            }
        }
    }
}

/// Tells of each batch as a worker does, until the service ends.
pub(crate) async fn pass_batches(app: Arc<App>) {
    let Some(messages) = &app.messages else { return app.ending.cancelled().await };
    let mut lost = false;
    loop {
        match app.ending.run_until_cancelled(subscribe(&app)).await {
            Some(Ok((client, told))) => {
                lost = false;
                let passed = pass(&app, messages, &client, told);
                if let Some(error) = app.ending.run_until_cancelled(passed).await {
                    app.events.redis_lost("batch notifications", &error);
                    lost = true;
                }
            }
            Some(Err(error)) if !lost => {
                app.events.redis_lost("batch notifications", &error);
                lost = true;
            }
            Some(Err(_)) | None => {}
        }
        if app.ending.run_until_cancelled(sleep(RETRY)).await.is_none() {
            return;
        }
    }
}

async fn subscribe(app: &App) -> Result<(Subscriber, Receiver<Message>), RedisError> {
    let client = redis::connect_subscriber(&app.settings).await?;
    let told = client.message_rx();
    let subscribed = client.subscribe(app.settings.keys.batch_notifications()).await;
    subscribed.map_err(|source| RedisError::Ask {
        url: app.settings.redis_url.to_string(),
        what: "a subscription",
        source,
    })?;
    Ok((client, told))
}

async fn pass(
    app: &App,
    Messages { sockets, newest, .. }: &Messages,
    client: &SubscriberClient,
    mut told: Receiver<Message>,
) -> Error {
    let mut renewals = interval(RENEW);
    loop {
        tokio::select! {
            message = told.recv() => match message {
                Ok(_) if sockets.clients() == 0 => {}
                Ok(message) => {
                    let batch = message.value.as_bytes().and_then(|json| serde_json::from_slice::<Persisted>(json).ok());
                    let Some(batch) = batch else { continue };
                    newest.send_modify(|stats| stats.persisted(&batch));
                    let mut stats = newest.borrow().clone();
                    // Before the first look the other figures are not known.
                    stats.threshold = app.settings.message_buffer.batch_size as u64;
                    send(sockets, &stats, Some(batch));
                }
                Err(RecvError::Lagged(count)) => app.events.broadcasts_missed(count),
                Err(RecvError::Closed) => return Error::new(fred::error::ErrorKind::Canceled, "the client was closed"),
            },
            _ = renewals.tick() => {
                if let Err(error) = client.subscribe(app.settings.keys.batch_notifications()).await {
                    return error;
                }
            }
        }
    }
}

fn send(sockets: &Sockets, stats: &Stats, batch: Option<Persisted>) {
    if let Ok(frame) = serde_json::to_string(&StatsFrame::new(stats, batch, Timestamp::now())) {
        sockets.send(frame);
    }
}
