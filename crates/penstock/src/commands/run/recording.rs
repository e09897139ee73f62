//! The relay that serves the bundled recording, the same one at each start in the same folder.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface};
use jiff::Timestamp;
use penstock_core::settings::Settings;
use penstock_replay::{Rate, Relay};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The file that remembers what makes it the same relay.
const FILE: &str = "recording.json";

/// What a cursor of ours means: the host it belongs to, and the times of its events.
#[derive(Serialize, Deserialize)]
struct Identity {
    port: u16,
    start: Timestamp,
}

/// Binds the relay; at a second start it goes on behind the cursor that Redis holds.
pub(super) async fn bind(data: &Path, rate: NonZeroU32, client: &Client, settings: &Settings) -> Result<Relay, Error> {
    let path = data.join(FILE);
    let known: Option<Identity> = fs::read(&path).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let cursor: Result<Option<u64>, _> = client.get(settings.keys.cursor()).await;
    let _ = client.quit().await;
    let first = known.is_none();
    let identity = known.unwrap_or_else(|| Identity { port: 0, start: Timestamp::now() });
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, identity.port));
    let relay = penstock_replay::bind(penstock_replay::Settings {
        address,
        rate: Rate::PerSecond(rate),
        backlog: cursor.ok().flatten().unwrap_or_default(),
        start_time: Some(identity.start),
        ..penstock_replay::Settings::default()
    })
    .await;
    let relay = match relay {
        Err(source @ penstock_replay::Error::Bind { .. }) => {
            return Err(Error::ReplayPort { address, source: Box::new(source) });
        }
        relay => relay?,
    };
    if first {
        let identity = Identity { port: relay.local_addr().port(), start: identity.start };
        let json = serde_json::to_vec(&identity).unwrap_or_default();
        fs::write(&path, json).map_err(|source| Error::DataFolder { path, source })?;
    }
    Ok(relay)
}
