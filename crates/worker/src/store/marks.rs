//! Marks of repos that are known to have missed something, though no entry says so.

use std::collections::BTreeMap;

use sqlx::postgres::PgBindIterExt;

use super::connection::Store;
use super::error::StoreError;
use super::repairs::{self, Lack};

/// A repo that is desynchronized though no entry says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desynchronized {
    /// The repo.
    pub did: String,
    /// Why, in a word.
    pub reason: String,
}

const MARK: &str = "\
INSERT INTO penstock.repos AS r (did, sync, sync_at)
SELECT u.did, u.sync, clock_timestamp() FROM unnest($1::text[], $2::text[]) AS u (did, sync)
ON CONFLICT (did) DO UPDATE SET sync = excluded.sync, sync_at = excluded.sync_at WHERE r.sync IS NULL";

const FORBIDDEN: &str = "SELECT did FROM penstock.repos WHERE did = ANY($1) AND forbidden";

// === impl Store ===

impl Store {
    /// Marks repos as desynchronized, and lists them to be read again; one that is marked already keeps its reason and time.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn mark_desynchronized(&self, repos: &[Desynchronized]) -> Result<(), StoreError> {
        // In the order in which batches lock repos.
        let repos: BTreeMap<&str, &str> = repos.iter().map(|repo| (&*repo.did, &*repo.reason)).collect();
        let query = sqlx::query(MARK).bind(repos.keys().bind_iter()).bind(repos.values().bind_iter());
        let lacks: BTreeMap<&str, Lack> = repos.iter().map(|(did, reason)| (*did, Lack::of_mark(reason))).collect();
        let marked = self.in_transaction(async |tx| {
            query.execute(&mut *tx).await?;
            let forbidden: Vec<String> =
                sqlx::query_scalar(FORBIDDEN).bind(repos.keys().bind_iter()).fetch_all(&mut *tx).await?;
            let mut lacks = lacks.clone();
            lacks.retain(|did, _| !forbidden.iter().any(|forbidden| forbidden == did));
            repairs::want(tx, &lacks).await
        });
        marked.await.map(drop).map_err(StoreError::Mark)
    }
}
