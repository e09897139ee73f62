//! Whether PostgreSQL answers, for `/ready` only.

use std::sync::Arc;
use std::time::Duration;

use penstock_core::settings::PostgresUrl;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::App;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Database {
    /// No address is set: the dashboard does not need it.
    NotUsed,
    /// It was not asked yet.
    Unknown,
    /// It answered the last time.
    Fit,
    /// It did not.
    Away,
}

/// Asks PostgreSQL every few seconds until the service ends.
pub(crate) async fn watch_database(app: Arc<App>, url: PostgresUrl) {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).connect_lazy(url.expose());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while app.ending.run_until_cancelled(ticks.tick()).await.is_some() {
        let answer = match &pool {
            Ok(pool) => match timeout(PATIENCE, sqlx::query("SELECT 1").execute(pool)).await {
                Ok(answer) => answer.map(|_| ()).map_err(|error| error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            },
            Err(error) => Err(error.to_string()),
        };
        let now = if answer.is_ok() { Database::Fit } else { Database::Away };
        let before = app.database.send_replace(now);
        match answer {
            Ok(()) if before != Database::Fit => app.events.postgres_found(),
            Err(error) if before != Database::Away => app.events.postgres_lost(&error),
            _ => {}
        }
    }
}
