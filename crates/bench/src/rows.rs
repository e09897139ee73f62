//! The measurements.

pub(crate) mod backfill;
pub(crate) mod beside;
pub(crate) mod big;
pub(crate) mod identity;
pub(crate) mod ingest;
pub(crate) mod latency;
pub(crate) mod live;
mod peer;
pub(crate) mod proof;
pub(crate) mod signed;
mod tap;
pub(crate) mod tracing;
pub(crate) mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use penstock_core::keys::{KeyPrefix, Keys, Names};
use penstock_core::redis;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::{TempFolder, TestRedis};
use penstock_replay::Recording;
use tokio::process::Command;
use tokio::time::sleep;

use crate::error::Error;
use crate::process::{Service, quiet};
use crate::relay;

/// How long a measured process may make no progress.
const STUCK: Duration = Duration::from_secs(30);

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A cap of the stream that no measurement reaches: nothing is to pause.
const NO_CAP: &str = "1000000000";

/// What every measurement needs.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The measured program.
    pub(crate) penstock: PathBuf,
    /// For logs; gone with the process.
    pub(crate) folder: TempFolder,
    /// How often each measurement is taken.
    pub(crate) runs: u64,
    /// How many events a run has, where that is not the measurement's own default.
    pub(crate) events: Option<u64>,
    /// What is replayed.
    pub(crate) recording: Recording,
    /// The program that the measured one is compared with.
    pub(crate) against: Option<PathBuf>,
    /// How many repos a backfill has.
    pub(crate) repos: u64,
    /// The peer of a backfill.
    pub(crate) tap: Option<PathBuf>,
}

/// An empty Redis without persistence, and a client of it.
struct Store {
    server: TestRedis,
    client: Client,
    keys: Keys,
}

// === impl Bench ===

impl Bench {
    /// Returns the same with the program to compare with as the measured one, if there is any.
    fn before(&self) -> Result<Option<Self>, Error> {
        let Some(penstock) = self.against.clone() else { return Ok(None) };
        let (folder, recording) = (TempFolder::new()?, self.recording.clone());
        Ok(Some(Self { penstock, folder, recording, against: None, tap: self.tap.clone(), ..*self }))
    }

    fn replay(&self, events: u64) -> penstock_replay::Settings {
        relay::replay(self.recording.clone(), events)
    }

    fn redis_settings(&self, url: &str) -> Result<Settings, Error> {
        Ok(Settings::load(&Layers::default().flag("redis.url", url))?)
    }

    async fn store(&self) -> Result<Store, Error> {
        let server = TestRedis::start().await?;
        let settings = self.redis_settings(&server.url())?;
        let client = redis::connect(&settings).await?;
        Ok(Store { server, client, keys: settings.keys })
    }

    /// Gives the command of a service on this Redis.
    fn service(&self, name: &str, store: &Store, admin: SocketAddr) -> Command {
        let mut command = quiet(&self.penstock);
        command.arg(name).env("REDIS_URL", store.server.url()).env("ADMIN_ADDRESS", admin.to_string());
        command.env("LOG_LEVEL", "warn");
        command
    }

    /// Starts ingest on a relay, from its oldest event.
    fn ingest(&self, store: &Store, relay: &str, admin: SocketAddr) -> Result<Service, Error> {
        self.verifying_ingest(store, relay, admin, "off")
    }

    /// Starts one that verifies commits in this mode.
    fn verifying_ingest(&self, store: &Store, relay: &str, admin: SocketAddr, mode: &str) -> Result<Service, Error> {
        let mut command = self.ingest_command(store, relay, admin);
        command.env("PENSTOCK_VERIFY_MODE", mode);
        Service::start("ingest", self.folder.path(), command)
    }

    /// The same with a filter that leaves every op out.
    fn filtering_ingest(&self, store: &Store, relay: &str, admin: SocketAddr) -> Result<Service, Error> {
        let mut command = self.ingest_command(store, relay, admin);
        command.env("PENSTOCK_VERIFY_MODE", "off").env("PENSTOCK_FILTER_COLLECTIONS", "com.example.nothing");
        Service::start("ingest", self.folder.path(), command)
    }

    fn ingest_command(&self, store: &Store, relay: &str, admin: SocketAddr) -> Command {
        let mut command = self.service("ingest", store, admin);
        command.env("RELAY_URL", relay).env("PENSTOCK_RELAY_START", "oldest").env("REDIS_MAX_STREAM_LEN", NO_CAP);
        command
    }
}

// === impl Store ===

impl Store {
    /// Waits until ingest has written everything up to this number.
    async fn until_cursor(&self, last: u64, ingest: &mut Service) -> Result<(), Error> {
        let (mut seen, mut since) = (None, Instant::now());
        loop {
            let cursor: Option<u64> = self.client.get(self.keys.cursor()).await?;
            if cursor.is_some_and(|cursor| cursor >= last) {
                return Ok(());
            }
            if cursor != seen {
                (seen, since) = (cursor, Instant::now());
            } else if since.elapsed() > STUCK {
                return Err(ingest.stuck(STUCK));
            }
            ingest.check()?;
            sleep(LOOK).await;
        }
    }
}

fn default_keys() -> Keys {
    Keys::new(KeyPrefix::default(), Names::default())
}

/// Writes a rate in thousands a second.
fn kilo(rate: f64) -> String {
    format!("{:.1} k/s", rate / 1e3)
}

/// Writes a share in percent.
fn percent(part: f64, whole: f64) -> String {
    format!("{:.0} %", if whole > 0.0 { 100.0 * part / whole } else { 0.0 })
}
