//! The peer of a backfill: `tap` of indigo, which keeps which records there are in PostgreSQL and sends them to a client.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::{Bench, LOOK, STUCK};
use crate::error::Error;
use crate::pds::Pds;
use crate::process::{Service, Usage, quiet};
use crate::relay;

/// What it did.
pub(super) struct Tapped {
    /// Until all repos were active and their records in its tables.
    pub(super) written: Duration,
    /// Until its client had all of them.
    pub(super) delivered: Duration,
    pub(super) usage: Usage,
}

/// How many repos are done, and how many failed.
const DONE: &str =
    "SELECT count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state = 'error') FROM repos";

/// Lets it read all repos of a host, with a client that takes everything and keeps nothing: what a client does with it comes on top.
pub(super) async fn read(bench: &Bench, program: &Path, host: &Pds, database: &str) -> Result<Tapped, Error> {
    let address = relay::free_address()?;
    let mut command = quiet(program);
    command.arg("run");
    for (name, value) in [
        ("TAP_DATABASE_URL", database),
        ("TAP_BIND", &address.to_string()),
        ("TAP_PLC_URL", &host.url()),
        ("TAP_RELAY_URL", &host.url()),
        ("TAP_FULL_NETWORK", "true"),
        ("TAP_DISABLE_ACKS", "true"),
        ("TAP_LOG_LEVEL", "error"),
    ] {
        command.env(name, value);
    }
    let began = Instant::now();
    let mut service = Service::start("tap", bench.folder.path(), command)?;
    let taken = Arc::new(AtomicU64::new(0));
    let client = take(format!("ws://{address}/channel"), Arc::clone(&taken));
    let done = until_done(&mut service, host, database, &taken, began).await;
    client.abort();
    let done = done?;
    service.stop().await?;
    Ok(done)
}

async fn until_done(
    service: &mut Service,
    host: &Pds,
    database: &str,
    taken: &AtomicU64,
    began: Instant,
) -> Result<Tapped, Error> {
    let failed = || Error::database("look how far tap is");
    let mut connection = PgConnection::connect(database).await.map_err(failed())?;
    let (mut written, mut seen, mut since) = (None, (0, 0), Instant::now());
    loop {
        // Its tables are not there at first.
        let (active, errors): (i64, i64) = sqlx::query_as(DONE).fetch_one(&mut connection).await.unwrap_or_default();
        if errors > 0 {
            return Err(service.stuck(began.elapsed()));
        }
        if written.is_none() && active.unsigned_abs() >= host.repos {
            written = Some(began.elapsed());
            let count = "SELECT count(*) FROM repo_records";
            let records: i64 = sqlx::query_scalar(count).fetch_one(&mut connection).await.map_err(failed())?;
            if records.unsigned_abs() != host.records {
                let (found, expected) = (records.unsigned_abs(), host.records);
                return Err(Error::Wrong { what: "records that tap has", found, expected });
            }
        }
        let now = (active, taken.load(Ordering::Relaxed));
        if let Some(written) = written
            && now.1 >= host.records
        {
            return Ok(Tapped { written, delivered: began.elapsed(), usage: service.usage()? });
        }
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > STUCK {
            return Err(service.stuck(STUCK));
        }
        service.check()?;
        sleep(LOOK).await;
    }
}

/// Takes what it sends, and counts the records.
fn take(url: String, taken: Arc<AtomicU64>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let Ok((mut socket, _)) = connect_async(&url).await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Text(text) = message
                    && text.contains(r#""type":"record""#)
                {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    })
}
