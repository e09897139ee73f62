//! Listens for the dashboard's requests.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use fred::interfaces::{EventInterface, PubsubInterface};
use penstock_core::causes::chain;
use penstock_core::keys::CONTROL_RECONNECT;
use penstock_core::redis;
use penstock_core::servers::Failing;
use penstock_core::settings::Settings;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::servers::Servers;

/// Wakes `reconnect` whenever a new connection is requested, until dropped.
pub(crate) async fn listen(settings: Arc<Settings>, servers: Servers, reconnect: Arc<Notify>) {
    let mut failing = Failing::default();
    loop {
        if let Err(error) = subscribed(&settings, &reconnect).await {
            match failing.failed(Instant::now(), servers.redis.circumstances(&*error)) {
                Some(_) => warn!(error = chain(&*error), "could not subscribe to the control channel, retrying"),
                None => debug!(error = chain(&*error), "could not subscribe to the control channel, retrying"),
            }
        }
        sleep(settings.redis.command_timeout).await;
    }
}

async fn subscribed(settings: &Settings, reconnect: &Notify) -> Result<(), Box<dyn Error + Send + Sync>> {
    let client = redis::connect_subscriber(settings).await?;
    let mut messages = client.message_rx();
    client.subscribe(settings.keys.ingest_control()).await?;
    loop {
        match messages.recv().await {
            Ok(message) if message.value.as_str().as_deref() == Some(CONTROL_RECONNECT) => {
                info!("reconnect requested");
                reconnect.notify_one();
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Err("the subscription ended".into()),
        }
    }
}
