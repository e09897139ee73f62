//! Removes what a pipeline has in Redis: by exact names, and only where the prefix is its own.

use std::collections::BTreeSet;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, HashesInterface, KeysInterface, LuaInterface};
use fred::types::Value;
use jiff::Timestamp;
use penstock_core::keys::Keys;
use penstock_core::live::Claim;
use penstock_core::redis::{self, RedisError};
use thiserror::Error;

use crate::scaling::Target;

/// For how many minutes back the activity of one minute may stand in Redis: its time to live, and a little.
const ACTIVITY_MINUTES: u64 = 90_000 / 60 + 2;

/// How many keys one command removes.
const AT_ONCE: usize = 100;

/// How long taking leave may take.
const LEAVING: Duration = Duration::from_secs(1);

/// Removes the group, and the stream where nobody else reads it.
/// KEYS: the stream. ARGV: the group. Returns the names of the group's consumers, and whether the stream stays.
const REMOVE_GROUP: &str = r"
local consumers, others = {}, 0
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then
  return { consumers, 0 }
end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local of = {}
  for at = 1, #info, 2 do of[info[at]] = info[at + 1] end
  if of.name == ARGV[1] then
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
      for at = 1, #consumer, 2 do
        if consumer[at] == 'name' then consumers[#consumers + 1] = consumer[at + 1] end
      end
    end
  else
    others = others + 1
  end
end
redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
if others == 0 then redis.call('DEL', KEYS[1]) end
return { consumers, others }
";

/// Removes the claim if it still is what was read. KEYS: the claim. ARGV: its value.
const REMOVE_CLAIM: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// Why Redis was not cleaned.
#[derive(Debug, Error)]
pub(super) enum CleanupError {
    /// Nobody answers there.
    #[error(transparent)]
    Connect(#[from] RedisError),
    /// A command failed.
    #[error("redis refused a command")]
    Command(#[from] Error),
    /// It took too long.
    #[error("redis does not answer in time")]
    Slow,
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
pub(super) async fn remove(target: &Target) -> Result<Removed, CleanupError> {
    with_client(target, async |client| {
        let keys = &target.settings.keys;
        let claim: Option<String> = client.get(keys.pipeline()).await?;
        let Some(claim) = claim.filter(|claim| is_ours(claim, target)) else { return Ok(Removed::default()) };
        let counted: Vec<String> = client.hkeys(keys.counts_published()).await?;
        let answer: Value = client.eval(REMOVE_GROUP, keys.stream(), keys.group()).await?;
        let mut answer = answer.into_array().into_iter();
        let consumers = answer.next().unwrap_or(Value::Null).into_array();
        let stream_kept = answer.next().and_then(|others| others.as_u64()).unwrap_or(0) > 0;
        let workers = consumers.into_iter().filter_map(Value::into_string);
        let workers: BTreeSet<String> =
            workers.chain(counted.iter().filter_map(|field| Some(field.rsplit_once('/')?.0.to_owned()))).collect();
        let mut removed = 0;
        let names = names(keys, &workers, minute());
        for some in names.chunks(AT_ONCE) {
            let gone: u64 = client.unlink(some.to_vec()).await?;
            removed += usize::try_from(gone).unwrap_or(usize::MAX);
        }
        // Last: a try that is cut off before knows the next time whose all this was.
        let gone: u64 = client.eval(REMOVE_CLAIM, keys.pipeline(), claim).await?;
        removed += usize::try_from(gone).unwrap_or(usize::MAX);
        Ok(Removed { ours: true, keys: removed, stream_kept })
    })
    .await
}

/// Removes the claim alone, where it is this pipeline's.
pub(super) async fn release(target: &Target) -> Result<(), CleanupError> {
    with_client(target, async |client| {
        let key = target.settings.keys.pipeline();
        let claim: Option<String> = client.get(&key).await?;
        if let Some(claim) = claim.filter(|claim| is_ours(claim, target)) {
            let () = client.eval(REMOVE_CLAIM, key, claim).await?;
        }
        Ok(())
    })
    .await
}

async fn with_client<T>(
    target: &Target,
    work: impl AsyncFnOnce(&Client) -> Result<T, CleanupError>,
) -> Result<T, CleanupError> {
    let client = redis::connect(&target.settings).await?;
    let done = work(&client).await;
    let _ = tokio::time::timeout(LEAVING, client.quit()).await;
    done
}

fn is_ours(claim: &str, target: &Target) -> bool {
    serde_json::from_str::<Claim>(claim).is_ok_and(|claim| claim.pipeline == target.settings.pipeline.name)
}

/// Lists every key that a pipeline may have, but for the stream and the claim.
fn names(keys: &Keys, workers: &BTreeSet<String>, minute: u64) -> Vec<String> {
    let claim = keys.pipeline();
    let fixed = keys.all().into_iter().filter(|(what, key)| !matches!(*what, "stream" | "group") && *key != claim);
    let fixed = fixed.map(|(_, key)| key);
    let activity = (minute.saturating_sub(ACTIVITY_MINUTES)..=minute + 1).map(|minute| keys.activity(minute));
    let of_workers = workers.iter().flat_map(|worker| {
        [
            keys.consumer_alive(worker),
            keys.consumer_applied(worker),
            keys.messages_taken(worker),
            keys.messages_taken_alive(worker),
        ]
    });
    fixed.chain(activity).chain(of_workers).collect()
}

fn minute() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or_default() / 60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_pipeline_is_named_but_for_the_stream_and_the_claim() {
        let keys = Keys::default();
        let names = names(&keys, &BTreeSet::from(["w-0".to_owned()]), 29_000_000);
        for key in
            [keys.cursor().to_owned(), keys.dead_letters(), keys.consumer_applied("w-0"), keys.messages_taken("w-0")]
        {
            assert!(names.contains(&key), "{key}");
        }
        assert!(names.contains(&keys.activity(29_000_000)) && names.contains(&keys.activity(29_000_000 - 1_500)));
        for kept in [keys.stream().to_owned(), keys.group().to_owned(), keys.pipeline()] {
            assert!(!names.contains(&kept), "{kept}");
        }
    }
}
