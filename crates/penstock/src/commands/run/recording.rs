//! The relay that serves the bundled recording, the same one at each start in the same folder. Its events happen now.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use jiff::Timestamp;
use penstock_core::settings::Settings;
use penstock_replay::{Rate, Relay, Stretch};
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use crate::error::Error;

/// The file that remembers what makes it the same relay.
const FILE: &str = "recording.json";

/// How many earlier starts are remembered: what was served is served again as it was, and reading on goes back a few events.
const STARTS: usize = 16;

/// What a cursor of ours means: the host it belongs to, and when its events happened.
#[derive(Serialize, Deserialize)]
struct Identity {
    port: u16,
    #[serde(default)]
    starts: Vec<Start>,
}

/// From which event on the recording was served, since when, and how fast.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Start {
    from: u64,
    since: Timestamp,
    rate: NonZeroU32,
}

/// Binds the relay; at a second start it goes on behind the cursor that Redis holds, with so many events more, and returns the
/// number of the last one.
pub(super) async fn bind(
    folder: &Folder,
    rate: NonZeroU32,
    events: Option<u64>,
    client: &Client,
    settings: &Settings,
) -> Result<(Relay, Option<u64>), Error> {
    let path = folder.path().join(FILE);
    let known: Option<Identity> = fs::read(&path).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let cursor: Result<Option<u64>, _> = client.get(settings.keys.cursor()).await;
    // Its events are numbered from 1, without a gap.
    let backlog = cursor.ok().flatten().unwrap_or_default();
    let last = events.map(|events| backlog.saturating_add(events));
    let Identity { port, mut starts } = known.unwrap_or(Identity { port: 0, starts: Vec::new() });
    starts.retain(|start| start.from < backlog);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let since = Timestamp::now();
    let relay = penstock_replay::bind(penstock_replay::Settings {
        address,
        rate: Rate::PerSecond(rate),
        total: last,
        backlog,
        live_since: Some(since),
        lived: starts
            .iter()
            .map(|Start { from, since, rate }| Stretch { from: *from, since: *since, rate: *rate })
            .collect(),
        ..penstock_replay::Settings::default()
    })
    .await;
    let relay = match relay {
        Err(source @ penstock_replay::Error::Bind { .. }) => {
            return Err(Error::ReplayPort { address, source: Box::new(source) });
        }
        relay => relay?,
    };
    starts.push(Start { from: backlog, since, rate });
    starts.drain(..starts.len().saturating_sub(STARTS));
    let json = serde_json::to_vec(&Identity { port: relay.local_addr().port(), starts }).unwrap_or_default();
    fs::write(&path, json).map_err(|source| Error::DataFolder { path, source })?;
    Ok((relay, last))
}
