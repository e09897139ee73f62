//! What is stale leaves the AppView's cache. Deleting a key twice, or one that is not there, does no harm.

use std::collections::BTreeSet;

use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::Value;
use penstock_core::script;

use super::client::{Answer, Consumer};

/// How many keys one script deletes at most: while it runs Redis does nothing else.
const AT_ONCE: usize = 10_000;

/// Lua unpacks some 8,000 values at most. Whoever may not delete these keys loses nothing but their freshness.
const DELETE: &str =
    "for at = 1, #ARGV, 1000 do redis.pcall('UNLINK', unpack(ARGV, at, math.min(at + 999, #ARGV))) end";

// === impl Consumer ===

impl Consumer {
    /// Deletes keys of the AppView's cache.
    pub(crate) async fn delete_stale(&self, stale: &BTreeSet<String>) -> Answer<()> {
        let deleted = self.delete_stale_before(stale).await?;
        self.delete_with_script(stale.iter().skip(deleted)).await
    }

    /// Deletes those that the script of the acknowledgement does not take; returns how many, from the first on.
    ///
    /// In a Cluster that script reaches only keys of its own slot: there each is deleted by itself, before it.
    pub(super) async fn delete_stale_before(&self, stale: &BTreeSet<String>) -> Answer<usize> {
        if self.client.is_clustered() {
            self.delete_one_by_one(stale).await?;
            return Ok(stale.len());
        }
        let before = stale.len().saturating_sub(AT_ONCE);
        let mut keys = stale.iter().take(before).peekable();
        while keys.peek().is_some() {
            self.delete_with_script(keys.by_ref().take(AT_ONCE)).await?;
        }
        Ok(before)
    }

    async fn delete_with_script<'k>(&self, keys: impl Iterator<Item = &'k String>) -> Answer<()> {
        let keys: Vec<Value> = keys.map(|key| key.as_str().into()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        script::run(&self.client, DELETE, Vec::<String>::new(), keys).await
    }

    async fn delete_one_by_one(&self, keys: &BTreeSet<String>) -> Answer<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let pipeline = self.client.pipeline();
        for key in keys {
            let () = pipeline.unlink(key.as_str()).await?;
        }
        // What cannot be deleted is left to its expiry.
        let _: Vec<Answer<Value>> = pipeline.try_all().await;
        Ok(())
    }
}
