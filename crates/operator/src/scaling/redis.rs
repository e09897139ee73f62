//! What Redis shows of a pipeline: its queue, what ingest reports of itself, and who holds the prefix.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, HashesInterface, KeysInterface};
use fred::types::config::Options;
use jiff::Timestamp;
use penstock_autoscale::{Ask, LagGap, Queue, observe};
use penstock_core::causes::{chain, innermost};
use penstock_core::keys::Keys;
use penstock_core::live::state;
use penstock_core::redis;
use penstock_core::servers::is_unanswered;
use penstock_core::time;
use penstock_core::trouble::Trouble;
use penstock_core::verified::Verified;
use tokio::time::{Instant, sleep};

use crate::context::Context;
use crate::state::{Absent, Target};
use crate::status::{Reading, Snapshot};

/// How often is checked whether a connection has come about.
const CONNECTING: Duration = Duration::from_millis(50);

/// Reads everything from a pipeline's Redis, and reports a Redis that goes or comes back.
pub(super) async fn read(context: &Context, target: &Target) -> (Result<Queue, LagGap>, Reading) {
    let settings = &target.settings;
    let patience = settings.redis.command_timeout;
    let client = match connected(context, target, patience).await {
        Ok(client) => client,
        Err(why) => return (Err(LagGap::RedisUnreachable), Reading::Unreachable(why)),
    };
    let ask = Ask { claim_time: settings.worker.claim_time, timeout: patience };
    let (queue, snapshot) = tokio::join!(
        observe(&client, &settings.keys, &ask),
        snapshot(&client, &settings.keys, &settings.pipeline.name, patience),
    );
    let shown = settings.redis_url.to_string();
    let reading = match snapshot {
        Ok(snapshot) => {
            context.events.redis_back(&shown);
            Reading::Read(Box::new(snapshot))
        }
        Err(error) => {
            let why = format!("{shown}: {}", chain(&error));
            let cause = is_unanswered(&error).then(|| innermost(&error));
            context.events.redis_away(&shown, cause.as_deref(), &why);
            Reading::Unreachable(why)
        }
    };
    match (&queue, &reading) {
        // It answers, but not this: a permission, or a key of another type.
        (Err(error), Reading::Read(_)) => context.events.backlog_unknown(&target.deployment, &chain(error)),
        (Err(_), Reading::Unreachable(_)) => {}
        (Ok(_), _) => context.events.backlog_known(&target.deployment),
    }
    (queue.map_err(|error| error.gap()), reading)
}

/// Returns the connection to Redis. The first time it is waited for a little: a Redis that was not asked yet is not unreachable.
async fn connected(context: &Context, target: &Target, patience: Duration) -> Result<Client, String> {
    let until = Instant::now() + patience;
    loop {
        match context.clients.get(target, &context.events) {
            Ok(client) => return Ok(client),
            Err(Absent::Away(why)) => return Err(why),
            Err(Absent::Connecting) if Instant::now() < until => sleep(CONNECTING).await,
            Err(Absent::Connecting) => return Err(format!("{} does not answer", target.settings.redis_url)),
        }
    }
}

/// Reads the small keys of a pipeline.
///
/// # Errors
/// Redis does not answer, or one of the keys has another type.
async fn snapshot(client: &Client, keys: &Keys, ours: &str, patience: Duration) -> Result<Snapshot, Error> {
    let options = Options { fail_fast: true, max_attempts: Some(1), timeout: Some(patience), ..Options::default() };
    let client = client.with_options(&options);
    let fields = vec![state::EVENT_TIME, state::PAUSED, state::DATA_LOSS, state::VERIFIED];
    // Who may not ask for it goes without.
    let memory = async { Ok::<_, Error>(redis::memory(&client, keys.stream()).await.ok()) };
    let (status, cursor, claim, trouble, values, memory) = tokio::try_join!(
        client.get::<Option<String>, _>(keys.status()),
        client.get::<Option<String>, _>(keys.cursor()),
        client.get::<Option<String>, _>(keys.pipeline()),
        client.get::<Option<String>, _>(keys.database_trouble()),
        client.hmget::<Vec<Option<String>>, _, _>(keys.ingest_state(), fields),
        memory,
    )?;
    let mut values = values.into_iter();
    let mut next = || values.next().flatten();
    // The status goes with its ingest; what else stands there is what the last one left.
    let alive = status.is_some();
    Ok(Snapshot {
        status: status.and_then(|status| serde_json::from_str(&status).ok()),
        cursor,
        event_time: next().and_then(|text| time::parse(&text)),
        paused: next().as_deref() == Some("1") && alive,
        data_loss: next().and_then(|text| text.parse().ok()).unwrap_or(0),
        verified: next().and_then(|text| Verified::read(&text)),
        at: Timestamp::now(),
        database: trouble.and_then(|text| Trouble::read(&text)),
        memory,
        claim: claim.and_then(|claim| serde_json::from_str(&claim).ok()),
        ours: ours.to_owned(),
        claim_key: keys.pipeline(),
        state_key: keys.ingest_state(),
    })
}
