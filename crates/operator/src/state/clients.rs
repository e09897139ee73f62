//! One connection for each Redis, however many pipelines share it; made in the background, so that none that is away delays
//! another.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use penstock_core::backoff::Backoff;
use penstock_core::causes::{chain, innermost};
use penstock_core::redis;
use penstock_core::servers::is_unanswered;
use tokio::time::{Instant, timeout};

use crate::events::Events;

use super::target::Target;

/// The pauses between tries to connect.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How long closing a connection may take.
const LEAVING: Duration = Duration::from_secs(1);

/// The connections, by address.
#[derive(Default)]
pub(crate) struct Clients {
    slots: Arc<Mutex<HashMap<String, Slot>>>,
}

/// Why there is no connection.
pub(crate) enum Absent {
    /// The first try is under way.
    Connecting,
    /// It failed, and why.
    Away(String),
}

enum Slot {
    /// Somebody is at it; and why it failed before, if it did.
    Connecting(Backoff, Option<String>),
    Connected(Client),
    /// Not before this moment again; and why.
    Away(Backoff, Instant, String),
}

// === impl Clients ===

impl Clients {
    /// Returns the connection to a pipeline's Redis, or why there is none yet.
    pub(crate) fn get(&self, target: &Target, events: &Events) -> Result<Client, Absent> {
        let address = redis::connection_key(&target.settings);
        let mut slots = self.slots();
        let (backoff, why) = match slots.get(&address) {
            Some(Slot::Connected(client)) => return Ok(client.clone()),
            Some(Slot::Connecting(_, why)) => return Err(Absent::new(why.clone())),
            Some(Slot::Away(_, until, why)) if Instant::now() < *until => return Err(Absent::Away(why.clone())),
            Some(Slot::Away(backoff, _, why)) => (backoff.clone(), Some(why.clone())),
            None => (Backoff::new(PAUSES.0, PAUSES.1), None),
        };
        slots.insert(address.clone(), Slot::Connecting(backoff, why.clone()));
        drop(slots);
        let (slots, settings) = (Arc::clone(&self.slots), target.settings.clone());
        let (events, shown) = (events.clone(), target.settings.redis_url.to_string());
        tokio::spawn(async move {
            let patience = settings.redis.command_timeout * 3;
            let connected = match timeout(patience, redis::connect(&settings)).await {
                Ok(connected) => {
                    connected.map_err(|error| (chain(&error), is_unanswered(&error).then(|| innermost(&error))))
                }
                Err(_) => Err((
                    format!("{shown} does not answer within {patience:?}"),
                    Some(format!("no answer within {patience:?}")),
                )),
            };
            let mut unwanted = None;
            {
                let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
                // Nobody asks for it any more where the slot is gone.
                match (slots.remove(&address), connected) {
                    (Some(Slot::Connecting(..)), Ok(client)) => {
                        events.redis_back(&shown);
                        slots.insert(address, Slot::Connected(client));
                    }
                    (Some(Slot::Connecting(mut backoff, _)), Err((why, cause))) => {
                        events.redis_away(&shown, cause.as_deref(), &why);
                        let until = Instant::now() + backoff.fail().max(PAUSES.0 / 2);
                        slots.insert(address, Slot::Away(backoff, until, why));
                    }
                    (_, connected) => unwanted = connected.ok(),
                }
            }
            if let Some(client) = unwanted {
                leave(client).await;
            }
        });
        Err(Absent::new(why))
    }

    /// Closes the connections that no pipeline asks for any more.
    pub(crate) async fn keep(&self, addresses: &HashSet<String>) {
        let closed: Vec<Slot> = {
            let mut slots = self.slots();
            let unused: Vec<String> =
                slots.keys().filter(|address| !addresses.contains(address.as_str())).cloned().collect();
            unused.iter().filter_map(|address| slots.remove(address)).collect()
        };
        for slot in closed {
            if let Slot::Connected(client) = slot {
                leave(client).await;
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Absent ===

impl Absent {
    fn new(why: Option<String>) -> Self {
        why.map_or(Self::Connecting, Self::Away)
    }
}

async fn leave(client: Client) {
    let _ = timeout(LEAVING, client.quit()).await;
}
