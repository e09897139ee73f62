//! Who holds a prefix in Redis: which pipeline, by its workers' claim, and which resource of that name, by the operator's note.
//!
//! A resource that is deleted while no operator runs leaves its claim behind. The note beside it tells a new resource of the name that
//! the old one is gone, so that the claim is free for whatever database the new one has.

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::KeysInterface;
use fred::types::Value;
use penstock_core::keys::Keys;
use penstock_core::live::Claim;
use penstock_core::script;

/// Removes the claim and the note, if they still are what was read. KEYS: the claim, the note. ARGV: their values, empty where absent.
const RELEASE: &str = r"
for at = 1, 2 do
  if (redis.call('GET', KEYS[at]) or '') ~= ARGV[at] then return 0 end
end
return redis.call('DEL', KEYS[1], KEYS[2])
";

/// Notes whose the claim is, if it still is what was read. KEYS: the claim, the note. ARGV: the claim's value, the uid.
const NOTE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
";

/// Lists the consumers of the group. KEYS: the stream. ARGV: the group.
const CONSUMERS: &str = r"
local consumers = {}
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then
  return consumers
end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  for at = 1, #info, 2 do
    if info[at] == 'name' and info[at + 1] == ARGV[1] then
      for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
        for of = 1, #consumer, 2 do
          if consumer[of] == 'name' then consumers[#consumers + 1] = consumer[of + 1] end
        end
      end
    end
  end
end
return consumers
";

/// The claim and the note beside it, as they stand in Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    claim: Option<String>,
    uid: Option<String>,
}

// === impl Holder ===

impl Holder {
    /// Reads both.
    ///
    /// # Errors
    /// Redis does not answer, or one of the keys has another type.
    pub(crate) async fn read(client: &(impl KeysInterface + Sync), keys: &Keys) -> Result<Self, Error> {
        let (claim, uid) = tokio::try_join!(client.get(keys.pipeline()), client.get(keys.pipeline_uid()))?;
        Ok(Self { claim, uid })
    }

    /// Returns what the workers claimed.
    pub(crate) fn claim(&self) -> Option<Claim> {
        self.claim.as_ref().and_then(|claim| serde_json::from_str(claim).ok())
    }

    /// Says whether a pipeline holds the prefix, and no other resource of its name is noted.
    pub(crate) fn is(&self, pipeline: &str, uid: &str) -> bool {
        self.is_of(pipeline) && self.uid.as_deref().is_none_or(|noted| noted == uid)
    }

    /// Returns what is to be done so that the note is right.
    pub(crate) fn next(&self, pipeline: &str, uid: &str, workers_ready: bool) -> Next {
        match self.uid.as_deref() {
            _ if !self.is_of(pipeline) => Next::Nothing,
            Some(noted) if noted == uid => Next::Nothing,
            // Workers that are ready have joined: the claim is theirs.
            None => Next::Note,
            Some(_) if workers_ready => Next::Note,
            Some(_) => Next::ReleaseIfLeft,
        }
    }

    /// Notes whose the claim is.
    ///
    /// # Errors
    /// Redis does not answer, or refuses it.
    pub(crate) async fn note(&self, client: &Client, keys: &Keys, uid: &str) -> Result<(), Error> {
        let Some(claim) = &self.claim else { return Ok(()) };
        let both = vec![keys.pipeline(), keys.pipeline_uid()];
        let _: Value = script::run(client, NOTE, both, vec![claim.as_str().into(), uid.into()]).await?;
        Ok(())
    }

    /// Removes claim and note, unless somebody wrote one of them meanwhile; returns how many keys.
    ///
    /// # Errors
    /// Redis does not answer, or refuses it.
    pub(crate) async fn release(&self, client: &Client, keys: &Keys) -> Result<usize, Error> {
        let both = vec![keys.pipeline(), keys.pipeline_uid()];
        let values = [&self.claim, &self.uid].map(|value| value.as_deref().unwrap_or_default().into());
        let gone: u64 = script::run(client, RELEASE, both, values.to_vec()).await?;
        Ok(usize::try_from(gone).unwrap_or(usize::MAX))
    }

    fn is_of(&self, pipeline: &str) -> bool {
        self.claim().is_some_and(|claim| claim.pipeline == pipeline)
    }
}

/// What is to be done with the note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// It is written: the claim is this resource's.
    Note,
    /// The claim is of a resource that is gone. It is released if no worker lives that made it.
    ReleaseIfLeft,
}

/// Lists the consumers of both streams of a pipeline.
///
/// # Errors
/// Redis does not answer, or refuses it.
pub(crate) async fn consumers(client: &Client, keys: &Keys) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for stream in [keys.stream(), keys.bulk()] {
        let some: Vec<String> = script::run(client, CONSUMERS, stream, vec![keys.group().into()]).await?;
        all.extend(some);
    }
    Ok(all)
}

/// Says whether some worker shows a sign of life.
///
/// # Errors
/// Redis does not answer, or refuses it.
pub(crate) async fn has_living_workers(client: &Client, keys: &Keys) -> Result<bool, Error> {
    for consumer in consumers(client, keys).await? {
        if client.exists::<u64, _>(keys.consumer_alive(&consumer)).await? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_claim_of_a_resource_that_is_gone_is_released() {
        let holder = |pipeline: &str, uid: Option<&str>| Holder {
            claim: Some(format!(r#"{{"pipeline":"{pipeline}","incarnation":"i"}}"#)),
            uid: uid.map(str::to_owned),
        };
        let table = [
            (Holder::default(), false, Next::Nothing),
            (holder("ns/q", Some("old")), false, Next::Nothing),
            (holder("ns/p", None), false, Next::Note),
            (holder("ns/p", Some("new")), false, Next::Nothing),
            (holder("ns/p", Some("old")), true, Next::Note),
            (holder("ns/p", Some("old")), false, Next::ReleaseIfLeft),
        ];
        for (holder, workers_ready, next) in table {
            assert_eq!(holder.next("ns/p", "new", workers_ready), next, "{holder:?}");
        }
        assert!(holder("ns/p", None).is("ns/p", "new") && holder("ns/p", Some("new")).is("ns/p", "new"));
        assert!(!holder("ns/p", Some("old")).is("ns/p", "new") && !holder("ns/q", None).is("ns/p", "new"));
    }
}
