//! The servers of a run's own: started, started again when they die, and stopped.

use std::fmt::Display;
use std::process::ExitStatus;
use std::time::Duration;

use penstock_core::causes::chain;
use penstock_core::settings::Layers;
use penstock_local::{LocalError, Persistence, Postgres, PostgresOptions, Redis, RedisOptions};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::addresses::Origins;
use super::folder::{Folder, Ports};
use super::say;
use crate::error::Error;

/// How often it is looked whether a server still runs.
const LOOK: Duration = Duration::from_millis(250);

/// The first and the longest pause before a server that did not start is started again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The servers of our own.
#[derive(Default)]
pub(super) struct Servers {
    pub(super) redis: Option<Redis>,
    pub(super) postgres: Option<Postgres>,
}

// === impl Servers ===

impl Servers {
    /// Starts what is not given, on the ports of the last run where they are free, and fills in its address.
    pub(super) async fn start(
        &mut self,
        folder: &Folder,
        mut layers: Layers,
        origins: &Origins,
        ports: &Ports,
    ) -> Result<Layers, Error> {
        if origins.redis.is_none() {
            info!("starting a local redis");
            let options =
                RedisOptions { persistence: Persistence::Aof, usual_port: ports.redis, ..RedisOptions::default() };
            let redis = self.redis.insert(Redis::start(&folder.within("redis")?, options).await?);
            layers = layers.flag("redis.url", redis.url());
        }
        if origins.postgres.is_none() {
            info!("starting a local postgresql");
            let options = PostgresOptions { usual_port: ports.postgres, ..PostgresOptions::default() };
            let postgres = self.postgres.insert(Postgres::start(&folder.within("postgres")?, options).await?);
            layers = layers.flag("postgres.url", postgres.url());
        }
        Ok(layers)
    }

    /// Starts again what dies, and says so, until dropped.
    pub(super) async fn keep(&mut self) {
        loop {
            sleep(LOOK).await;
            if let Some(redis) = &mut self.redis
                && let Some(how) = redis.ended().unwrap_or_default()
            {
                revive("redis", how, async || redis.restart().await).await;
            }
            if let Some(postgres) = &mut self.postgres
                && let Some(how) = postgres.ended().unwrap_or_default()
            {
                revive("postgres", how, async || postgres.restart().await).await;
            }
        }
    }

    /// Stops them in order.
    pub(super) async fn stop(&mut self) {
        if let Some(postgres) = &mut self.postgres
            && let Err(error) = postgres.stop().await
        {
            warn!(error = chain(&error), "could not stop postgresql cleanly");
        }
        if let Some(redis) = &mut self.redis
            && let Err(error) = redis.stop().await
        {
            warn!(error = chain(&error), "could not stop redis cleanly");
        }
    }
}

/// Starts a server until it runs.
async fn revive(name: &str, how: ExitStatus, mut restart: impl AsyncFnMut() -> Result<(), LocalError>) {
    let died = Instant::now();
    say(format_args!("{name:<10} exited ({how}); restarting it, no data is lost"));
    let mut pause = PAUSES.0;
    while let Err(error) = restart().await {
        say(format_args!("{name:<10} could not be restarted, retrying in {} s: {}", pause.as_secs(), one_line(&error)));
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
    say(format_args!("{name:<10} running again after {:.1} s", died.elapsed().as_secs_f64()));
}

/// Writes an error without the lines of a log behind it.
fn one_line(error: &impl Display) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_end_matches("; its log ends with:").to_owned()
}
