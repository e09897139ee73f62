//! Whether PostgreSQL answers, for `/ready` only.

use std::sync::Arc;
use std::time::Duration;

use penstock_core::causes::{innermost, said};
use penstock_core::servers::{self, Kind, Server};
use penstock_postgres::Address;
use penstock_telemetry::admin::CheckHandle;
use sqlx::PgConnection;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::App;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a connection is used: the address may lead to another server by then.
const LIFETIME: Duration = Duration::from_secs(60);

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
pub(crate) async fn watch_database(app: Arc<App>, address: Address, note: CheckHandle) {
    let means = "the page does not need it, /ready answers 503";
    let server = Server::new(Kind::Postgres, address.url(), means, INTERVAL + PATIENCE);
    let address = address.named("penstock-dashboard");
    let mut connection = None;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while app.ending.run_until_cancelled(ticks.tick()).await.is_some() {
        let answer = timeout(PATIENCE, ask(&address, &mut connection)).await;
        let now = if matches!(answer, Ok(Ok(()))) { Database::Fit } else { Database::Away };
        let before = app.database.send_replace(now);
        match answer {
            Ok(Ok(())) => {
                note.ok();
                server.answered();
                if before == Database::Unknown {
                    app.events.postgres_found();
                }
                continue;
            }
            Err(_) => server.failed_because(&format!("no answer within {PATIENCE:?}")),
            // The next connection tells whether it is away, and why.
            Ok(Err(error)) if is_ending(&error) => server.lost_because(&innermost(&error)),
            Ok(Err(error)) if is_unanswered(&error) => server.failed(&error),
            Ok(Err(error)) => {
                let said = said(&error);
                note.failing(format!("could not connect to postgresql: {said}"));
                if before != Database::Away {
                    app.events.postgres_lost(&said);
                }
            }
        }
        if let Some(failure) = server.failure() {
            note.failing(failure);
        }
        connection = None;
    }
}

/// Asks over the connection that is there, or a new one.
async fn ask(address: &Address, held: &mut Option<(PgConnection, Instant)>) -> sqlx::Result<()> {
    // One that gives no answer in time is not used again.
    let (mut connection, since) = match held.take() {
        Some((connection, since)) if since.elapsed() < LIFETIME => (connection, since),
        _ => (address.connect().await?, Instant::now()),
    };
    // Not prepared: behind a pooler the second half could come to another session.
    sqlx::raw_sql("SELECT 1").execute(&mut connection).await?;
    *held = Some((connection, since));
    Ok(())
}

/// Returns whether PostgreSQL said that it starts or stops.
fn is_ending(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03"))
}

/// Returns whether PostgreSQL could not be reached or gave no answer; one that starts or stops answers nothing else.
pub(crate) fn is_unanswered(error: &sqlx::Error) -> bool {
    is_ending(error)
        || matches!(error, sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut)
        || servers::is_unanswered(error)
}
