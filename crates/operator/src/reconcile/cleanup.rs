//! Removes the keys of a pipeline from Redis: by exact names, and only if the prefix is its own.

use std::collections::BTreeSet;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, HashesInterface, KeysInterface, SortedSetsInterface};
use fred::types::Value;
use jiff::Timestamp;
use penstock_core::keys::Keys;
use penstock_core::redis::{self, RedisError};
use penstock_core::script;
use penstock_core::servers::is_unanswered;
use thiserror::Error;
use tokio::time::timeout;

use crate::holder::{self, Holder};
use crate::state::Target;

/// For how many minutes back the activity of one minute may stand in Redis: its time to live, and a little.
const ACTIVITY_MINUTES: u64 = 90_000 / 60 + 2;

/// How many keys one command removes.
const AT_ONCE: usize = 100;

/// How long connecting may take, and a short question.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long closing the connection may take.
const LEAVING: Duration = Duration::from_secs(1);

/// Removes the group, and the stream where nobody else reads it.
/// KEYS: the stream. ARGV: the group. Returns how many others read it.
const REMOVE_GROUP: &str = r"
local others = 0
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then
  return 0
end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  for at = 1, #info, 2 do
    if info[at] == 'name' and info[at + 1] ~= ARGV[1] then others = others + 1 end
  end
end
redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
if others == 0 then redis.call('DEL', KEYS[1]) end
return others
";

/// Why Redis was not cleaned.
#[derive(Debug, Error)]
pub(super) enum CleanupError {
    /// Redis cannot be reached.
    #[error(transparent)]
    Connect(#[from] RedisError),
    /// A command failed.
    #[error("a redis command failed")]
    Command(#[from] Error),
    /// It was connected to, and then took too long.
    #[error("redis did not answer in time")]
    Slow,
    /// No connection came about.
    #[error("could not connect to redis in time")]
    Away,
}

// === impl CleanupError ===

impl CleanupError {
    /// Says whether Redis itself gives no answer.
    pub(super) fn is_away(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Away => true,
            Self::Command(error) => is_unanswered(error),
            Self::Slow => false,
        }
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// Whether this pipeline holds the prefix; where it does not, nothing is removed.
    pub(super) ours: bool,
    /// How many keys.
    pub(super) keys: usize,
    /// Whether the stream stays because others read it.
    pub(super) stream_kept: bool,
}

/// Removes everything of a pipeline that holds its prefix. Where another one does, or nobody, nothing is removed: without a worker of
/// ours that claimed it, what stands there may be another system's.
pub(super) async fn remove(target: &Target, uid: &str, patience: Duration) -> Result<Removed, CleanupError> {
    with_client(target, patience, async |client| {
        let keys = &target.settings.keys;
        let holder = Holder::read(client, keys).await?;
        if !holder.is(&target.settings.pipeline.name, uid) {
            return Ok(Removed::default());
        }
        // What tells the workers' names goes after what bears them: if this try is cut off, the next one finds them again.
        let workers = workers(client, keys).await?;
        let mut removed = unlink(client, of_workers(keys, &workers)).await?;
        removed += unlink(client, names(keys, minute())).await?;
        let answer: Value = script::run(client, REMOVE_GROUP, keys.stream(), vec![keys.group().into()]).await?;
        // Only our own workers know of the second stream.
        let _: Value = script::run(client, REMOVE_GROUP, keys.bulk(), vec![keys.group().into()]).await?;
        let stream_kept = answer.as_u64().unwrap_or(0) > 0;
        // Last: the next try still sees whose keys they are.
        removed += holder.release(client, keys).await?;
        Ok(Removed { ours: true, keys: removed, stream_kept })
    })
    .await
}

/// Removes the claim alone, where it is this resource's.
pub(super) async fn release(target: &Target, uid: &str) -> Result<(), CleanupError> {
    with_client(target, PATIENCE, async |client| {
        let keys = &target.settings.keys;
        let holder = Holder::read(client, keys).await?;
        if holder.is(&target.settings.pipeline.name, uid) {
            holder.release(client, keys).await?;
        }
        Ok(())
    })
    .await
}

/// Asks whether Redis answers.
pub(super) async fn ask(target: &Target) -> Result<(), CleanupError> {
    with_client(target, PATIENCE, async |client| Ok(client.ping::<()>(None).await?)).await
}

/// Connects, and works for so long at most.
async fn with_client<T>(
    target: &Target,
    patience: Duration,
    work: impl AsyncFnOnce(&Client) -> Result<T, CleanupError>,
) -> Result<T, CleanupError> {
    let connected = timeout(PATIENCE, redis::connect(&target.settings)).await;
    let client = connected.map_err(|_| CleanupError::Away)??;
    let done = timeout(patience, work(&client)).await;
    let _ = timeout(LEAVING, client.quit()).await;
    done.unwrap_or(Err(CleanupError::Slow))
}

/// Lists the names of the workers that there are or were, by all that tells of them.
async fn workers(client: &Client, keys: &Keys) -> Result<BTreeSet<String>, CleanupError> {
    let mut workers: BTreeSet<String> = holder::consumers(client, keys).await?.into_iter().collect();
    let counted: Vec<String> = client.hkeys(keys.counts_published()).await?;
    workers.extend(counted.iter().filter_map(|field| Some(field.rsplit_once('/')?.0.to_owned())));
    // Of those that take messages; the consumer of one that died is long gone.
    let takers: Vec<String> = client.zrange(keys.messages_workers(), 0, -1, None, false, None, false).await?;
    workers.extend(takers);
    Ok(workers)
}

async fn unlink(client: &Client, names: Vec<String>) -> Result<usize, CleanupError> {
    let mut removed = 0;
    for some in names.chunks(AT_ONCE) {
        let gone: u64 = client.unlink(some.to_vec()).await?;
        removed += usize::try_from(gone).unwrap_or(usize::MAX);
    }
    Ok(removed)
}

/// Lists every key that a pipeline may have, but for the streams, the claim and what workers have by their names.
fn names(keys: &Keys, minute: u64) -> Vec<String> {
    let claim = [keys.pipeline(), keys.pipeline_uid()];
    let fixed = keys
        .all()
        .into_iter()
        .filter(|(what, key)| !matches!(*what, "stream" | "bulk" | "group") && !claim.contains(key));
    let fixed = fixed.map(|(_, key)| key);
    let activity = (minute.saturating_sub(ACTIVITY_MINUTES)..=minute + 1).map(|minute| keys.activity(minute));
    fixed.chain(activity).collect()
}

/// Lists the keys that workers have by their names.
fn of_workers(keys: &Keys, workers: &BTreeSet<String>) -> Vec<String> {
    let of = |worker: &String| {
        [
            keys.consumer_alive(worker),
            keys.consumer_applied(worker),
            keys.messages_taken(worker),
            keys.messages_taken_alive(worker),
        ]
    };
    workers.iter().flat_map(of).collect()
}

fn minute() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or_default() / 60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_pipeline_is_named_but_for_the_streams_and_the_claim() {
        let keys = Keys::default();
        let mut names = names(&keys, 29_000_000);
        names.extend(of_workers(&keys, &BTreeSet::from(["w-0".to_owned()])));
        for key in
            [keys.cursor().to_owned(), keys.dead_letters(), keys.consumer_applied("w-0"), keys.messages_taken("w-0")]
        {
            assert!(names.contains(&key), "{key}");
        }
        assert!(names.contains(&keys.activity(29_000_000)) && names.contains(&keys.activity(29_000_000 - 1_500)));
        for kept in
            [keys.stream(), keys.bulk(), keys.group(), &keys.pipeline(), &keys.pipeline_uid()].map(str::to_owned)
        {
            assert!(!names.contains(&kept), "{kept}");
        }
    }
}
