//! Looks at both servers, and at the directory of accounts: every question by itself, bounded in time, and none that changes anything.
//!
//! A question that is refused is remembered as not seen, and the next one is asked; a server that is away ends its side.

pub(crate) mod dialect;
mod directory;
mod postgres;
mod redis;

use std::time::Duration;

use penstock_core::settings::{Settings, Unresolved, Verification};
use penstock_postgres::Address;
use tokio::time::timeout;

use crate::seen::{Policy, Seen, Side};

/// How long one side may take beside the pause between its two looks.
const SIDE: Duration = Duration::from_secs(25);

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(4);

/// Looks at both servers at once, twice, so long apart.
pub(crate) async fn look(settings: &Settings, pause: Duration) -> Seen {
    let mut seen = Seen { policy: policy(settings), ..Seen::default() };
    let address = Address::of(&settings.postgres);
    let mut postgres = address.as_ref().map(|_| Side::default());
    let all = async {
        let redis = bounded(pause, &mut seen.redis, async |side| redis::look(settings, pause, side).await);
        let postgres = async {
            if let (Some(address), Some(side)) = (&address, postgres.as_mut()) {
                bounded(pause, side, async |side| {
                    postgres::look(address, settings.message_buffer.enabled, pause, side).await;
                })
                .await;
            }
        };
        let directory = async { if settings.identity.enabled { Some(directory::look(settings).await) } else { None } };
        tokio::join!(redis, postgres, directory).2
    };
    seen.directory = Box::pin(all).await;
    seen.postgres = postgres;
    seen
}

/// Looks at one side; what was seen until the time was over stays.
async fn bounded<T>(pause: Duration, side: &mut Side<T>, look: impl AsyncFnOnce(&mut Side<T>)) {
    if timeout(SIDE + pause, look(side)).await.is_err() {
        side.error.get_or_insert_with(|| format!("no reply within {} s", (SIDE + pause).as_secs()));
    }
}

fn policy(settings: &Settings) -> Policy {
    let postgres = settings.postgres.url.as_ref();
    Policy {
        redis_url: settings.redis_url.to_string(),
        postgres_url: postgres.map(ToString::to_string).unwrap_or_default(),
        postgres_port: postgres.and_then(postgres::port).unwrap_or(5432),
        cluster: settings.redis_url.kind() == penstock_core::settings::RedisKind::Cluster,
        stream: settings.keys.stream().to_owned(),
        bulk: settings.keys.bulk().to_owned(),
        cursor_key: settings.keys.cursor().to_owned(),
        group: settings.keys.group().to_owned(),
        pipeline: settings.pipeline.name.clone(),
        hosts: settings.relay.urls.iter().map(penstock_core::settings::RelayUrl::host).collect(),
        max_len: settings.redis.max_stream_len,
        high_watermark: percent(&settings.ingest.high_watermark.to_string()),
        claim_time: settings.worker.claim_time,
        foreign_group_hold: settings.ingest.foreign_group_hold,
        checkpoint_interval: settings.worker.checkpoint_interval,
        allow_eviction: settings.redis.allow_eviction,
        appview_cursor: settings.ingest.appview_cursor,
        pool_size: settings.postgres.pool_size.get(),
        directory: settings.identity.plc_url.clone(),
        holds: settings.verify.signatures != Verification::Off && settings.verify.unresolved == Unresolved::Hold,
    }
}

fn percent(text: &str) -> u64 {
    text.trim_end_matches('%').parse().unwrap_or(80)
}
