//! What ingest says of itself in Redis, and whose the prefix is.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, HashesInterface, KeysInterface};
use fred::types::config::Options;
use penstock_core::keys::Keys;
use penstock_core::live::state;
use penstock_core::time;

use crate::status::Pulse;

/// Reads the small keys of a pipeline.
///
/// # Errors
/// Redis does not answer, or one of the keys has another type.
pub(super) async fn look(client: &Client, keys: &Keys, ours: &str, patience: Duration) -> Result<Pulse, Error> {
    let options = Options { fail_fast: true, max_attempts: Some(1), timeout: Some(patience), ..Options::default() };
    let client = client.with_options(&options);
    let fields = vec![state::EVENT_TIME, state::PAUSED, state::DATA_LOSS];
    let (status, cursor, claim, told) = tokio::try_join!(
        client.get::<Option<String>, _>(keys.status()),
        client.get::<Option<String>, _>(keys.cursor()),
        client.get::<Option<String>, _>(keys.pipeline()),
        client.hmget::<Vec<Option<String>>, _, _>(keys.ingest_state(), fields),
    )?;
    let mut told = told.into_iter();
    let mut next = || told.next().flatten();
    // The status goes with its ingest; what else stands there is what the last one left.
    let alive = status.is_some();
    Ok(Pulse {
        status: status.and_then(|status| serde_json::from_str(&status).ok()),
        cursor,
        event_time: next().and_then(|text| time::parse(&text)),
        paused: next().as_deref() == Some("1") && alive,
        data_loss: next().and_then(|text| text.parse().ok()).unwrap_or(0),
        claim: claim.and_then(|claim| serde_json::from_str(&claim).ok()),
        ours: ours.to_owned(),
        claim_key: keys.pipeline(),
        state_key: keys.ingest_state(),
    })
}
