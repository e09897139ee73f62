//! The servers of a run, the relay, and the witness.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use penstock_local::testing::{TestRedis, fresh_database};
use penstock_replay::{Handle, Rate, Settings};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::SETTINGS;
use super::player::Theirs;
use super::reader::Reader;
use crate::faults;
use crate::rig::Rig;

/// Everything that is there before either system.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) redis: TestRedis,
    /// What the relay serves, without an end.
    pub(crate) settings: Settings,
    pub(crate) relay: Handle,
    pub(crate) theirs: Arc<Theirs>,
    pub(crate) reader: Reader,
    _relay: DropGuard,
}

/// Starts it, with an empty database; what ours say is kept in this folder, which is emptied first.
pub(crate) async fn set(logs: &Path, rate: u32, max_len: u64) -> Stage {
    let _ = fs::remove_dir_all(logs);
    fs::create_dir_all(logs).unwrap();
    let redis = faults::redis().await;
    let database = fresh_database().await.unwrap();
    let mut rig = Rig::between(&[("REDIS_URL", &redis.url())], &database).await;
    rig.keep_logs(logs.to_owned());
    for (name, value) in SETTINGS {
        rig.set(name, value);
    }
    let settings = Settings { rate: Rate::PerSecond(rate.try_into().unwrap()), ..Settings::default() };
    let mut relay = penstock_replay::bind(settings.clone()).await.unwrap();
    relay.prepared().await.unwrap();
    let (handle, url, over) = (relay.handle(), format!("ws://{}", relay.local_addr()), CancellationToken::new());
    tokio::spawn(relay.run(over.clone()));
    rig.set("RELAY_URL", &url);
    let theirs = Theirs::new(redis.port(), rig.keys.clone(), url, &database, max_len);
    let reader = Reader::start(&theirs);
    Stage { rig, redis, settings, relay: handle, theirs, reader, _relay: over.drop_guard() }
}
