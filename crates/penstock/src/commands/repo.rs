//! What is known of one repo or record: here, at its host, and in between.

use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use penstock_core::causes::said;
use penstock_core::filter_files;
use penstock_core::redis;
use penstock_core::settings::Settings;
use penstock_identity::Identities;
use penstock_lookup::{Network, Sources, look};
use penstock_postgres::{Address, Pool};
use penstock_repo::Repos;
use penstock_telemetry::metrics::Metrics;
use sqlx::postgres::PgPoolOptions;
use tokio::time::timeout;

use crate::cli::{Repo, RepoOutput};
use crate::error::Error;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether all is as it should be is not known.
const UNKNOWN: u8 = 2;

/// Prints what is known; the exit code says whether all is as it should be.
pub(super) async fn run(args: &Repo, settings: &Settings) -> Result<ExitCode, Error> {
    let pool = pool(settings);
    let redis = match timeout(PATIENCE, redis::connect(settings)).await {
        Ok(connected) => connected.map_err(|error| format!("redis does not answer ({})", said(&error))),
        Err(_) => Err(format!("redis does not answer within {} s", PATIENCE.as_secs())),
    };
    let metrics = Metrics::new();
    // Without the table: what a person is told is not of yesterday.
    let network = if args.offline {
        None
    } else {
        let identities = Identities::new(settings, None, &metrics)?;
        let repos = Repos::new(settings, identities.clone(), &metrics)?;
        Some((identities, repos))
    };
    let sources = Sources {
        database: pool.as_ref().map_err(Clone::clone),
        redis: redis.as_ref().map_err(Clone::clone),
        keys: &settings.keys,
        rules: filter_files::load(&settings.filter).map_err(|error| said(&error)),
        network: match &network {
            Some((identities, repos)) => Ok(Network { identities, repos }),
            None => Err("--offline".to_owned()),
        },
    };
    let report = look(&args.asked, &sources).await;
    let text = match args.output {
        RepoOutput::Text => report.to_text(),
        RepoOutput::Json => report.to_json() + "\n",
    };
    // Nobody reads any more: the exit code still tells.
    let _ = stdout().write_all(text.as_bytes());
    Ok(ExitCode::from(match report.answer.good {
        Some(good) => u8::from(!good),
        None => UNKNOWN,
    }))
}

/// Connections to the database, made when they are needed.
fn pool(settings: &Settings) -> Result<Pool, String> {
    let address = Address::of(&settings.postgres);
    let address = address.ok_or_else(|| "no database is set (DATABASE_URL)".to_owned())?;
    let options = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
    Pool::lazy(address, options, |_| true).map_err(|error| said(&error))
}
