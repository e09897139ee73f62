//! Listens to what the dashboard asks.

use std::sync::Arc;

use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use penstock_core::keys::CONTROL_RECONNECT;
use penstock_core::redis;
use penstock_core::settings::Settings;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;
use tracing::{info, warn};

/// Wakes `reconnect` each time somebody asks for a new connection, until dropped.
pub(crate) async fn listen(settings: Arc<Settings>, reconnect: Arc<Notify>) {
    loop {
        if let Err(error) = subscribed(&settings, &reconnect).await {
            warn!(error, "could not listen to the control channel");
        }
        sleep(settings.redis.command_timeout).await;
    }
}

async fn subscribed(settings: &Settings, reconnect: &Notify) -> Result<(), String> {
    let client = redis::connect_subscriber(settings).await.map_err(|error| error.to_string())?;
    let mut messages = client.message_rx();
    client.subscribe(settings.keys.ingest_control()).await.map_err(|error| error.to_string())?;
    loop {
        match messages.recv().await {
            Ok(message) if message.value.as_str().as_deref() == Some(CONTROL_RECONNECT) => {
                info!("asked for a new connection");
                reconnect.notify_one();
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => {
                let _ = client.quit().await;
                return Err("the subscription ended".to_owned());
            }
        }
    }
}
