//! The store on a real PostgreSQL.

mod authority;
mod chains;
mod changed;
mod claims;
mod converge;
mod counts;
mod deletions;
mod derived;
mod documented;
mod fixtures;
mod foreign;
mod handles;
mod lacking;
mod letters;
mod live;
mod migrations;
mod misfits;
mod opt_outs;
mod pairs;
mod place;
mod planned;
mod plans;
mod pooled;
mod prune;
mod relocate;
mod roles;
mod silence;
mod snapshots;
mod sweeps;
mod times;
mod users;

use std::collections::BTreeMap;

use penstock_core::data::Action;
use penstock_core::entry::{Account, Commit, Entry, Event, Identity, Op};
use penstock_core::stream::{Seq, StreamId};
use serde_json::{Value, json};

use super::{Applied, HostAnswer, Store, StoreSettings};
use crate::store::schema;

/// A migrated database of a test's own.
struct Db {
    store: Store,
    url: String,
}

// === impl Db ===

impl Db {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(set: impl FnOnce(&mut StoreSettings)) -> Self {
        let url = penstock_local::testing::fresh_database().await.unwrap();
        schema::migrate(&url, true).await.unwrap();
        let mut settings = StoreSettings::new(&url);
        settings.pool_size = 3;
        set(&mut settings);
        Self { store: Store::connect(&settings).await.unwrap(), url }
    }

    async fn apply(&self, entries: &[Entry]) -> Applied {
        self.store.apply("w1", entries).await.unwrap()
    }

    /// Applies entries one batch each.
    async fn apply_each(&self, entries: &[Entry]) {
        for entry in entries {
            self.apply(std::slice::from_ref(entry)).await;
        }
    }

    /// Sweeps until nothing is left, also of what failed before and waits.
    async fn sweep(&self) {
        const WAITS: &str = "SELECT EXISTS (SELECT FROM penstock.sweeps)";
        loop {
            while self.store.sweep_deleted("w1", 2).await.unwrap().more {}
            if !sqlx::query_scalar::<_, bool>(WAITS).fetch_one(self.store.pool()).await.unwrap() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Believes every claim that is due, as a worker does where no host is asked.
    async fn believe(&self) {
        loop {
            let claims = self.store.take_claims(100, 0, &[]).await.unwrap();
            if claims.is_empty() {
                return;
            }
            for claim in claims {
                self.store.settle_claim(&claim, &HostAnswer::Believed).await.unwrap();
            }
        }
    }

    /// Lets time pass for all claims.
    async fn pass(&self, hours: u32) {
        let sql = "UPDATE penstock.account_claims SET since = since - $1 * interval '1 hour', due = due - $1 * interval '1 hour', \
                   asked_at = asked_at - $1 * interval '1 hour'";
        sqlx::query(sql).bind(f64::from(hours)).execute(self.store.pool()).await.unwrap();
    }

    /// Returns the rows of a query as JSON.
    async fn rows(&self, query: &str) -> Vec<Value> {
        let sql = format!("SELECT to_jsonb(t) FROM ({query}) AS t");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(self.store.pool()).await.unwrap()
    }

    /// Returns how many rows of a table were found by its indexes while something was done with a store of its own.
    async fn rows_read(&self, table: &str, doing: impl AsyncFnOnce(Store)) -> u64 {
        const READ: &str = "SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relid = $1::text::regclass";
        const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
        // What a connection read is told when it is closed, or was idle for a while: those there are tell it now.
        let mut all = Vec::new();
        for _ in 0..self.store.pool().size() {
            all.push(self.store.pool().acquire().await.unwrap());
        }
        for conn in &mut all {
            sqlx::raw_sql("SELECT pg_stat_force_next_flush()").execute(&mut **conn).await.unwrap();
        }
        drop(all);
        let mut asking = <sqlx::PgConnection as sqlx::Connection>::connect(&self.url).await.unwrap();
        let settings = StoreSettings { pool_size: 2, page: self.store.page, ..StoreSettings::new(&self.url) };
        // Not those that are just ending, such as the second one that each store begins with.
        let connections = i64::from(self.store.pool().size()) + 1;
        let before: i64 = sqlx::query_scalar(READ).bind(table).fetch_one(&mut asking).await.unwrap();
        let store = Store::connect(&settings).await.unwrap();
        doing(store.clone()).await;
        store.pool().close().await;
        while sqlx::query_scalar::<_, i64>(CONNECTIONS).fetch_one(&mut asking).await.unwrap() > connections {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let after: i64 = sqlx::query_scalar(READ).bind(table).fetch_one(&mut asking).await.unwrap();
        (after - before).cast_unsigned()
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(self.store.pool()).await.unwrap();
    }

    /// Returns the totals of all workers.
    async fn totals(&self) -> BTreeMap<String, i64> {
        let mut totals = BTreeMap::new();
        for count in self.store.counts().await.unwrap() {
            *totals.entry(count.field).or_default() += count.total;
        }
        totals.retain(|_, total| *total != 0);
        totals
    }

    /// Returns all that must not depend on how entries were dealt.
    async fn state(&self) -> BTreeMap<&'static str, Vec<Value>> {
        let mut state = BTreeMap::new();
        for (table, except) in [
            ("users", "'created_at', 'indexed_at'"),
            ("thread_gates", "'updated_at'"),
            ("post_gates", ""),
            ("posts", "'indexed_at'"),
            ("likes", "'indexed_at'"),
            ("reposts", "'indexed_at'"),
            ("bookmarks", "'indexed_at'"),
            ("follows", "'indexed_at'"),
            ("blocks", "'indexed_at'"),
            ("lists", "'indexed_at'"),
            ("list_items", "'indexed_at'"),
            ("list_blocks", "'indexed_at'"),
            ("feed_generators", "'indexed_at'"),
            ("starter_packs", "'indexed_at'"),
            ("labeler_services", "'indexed_at'"),
            ("labels", "'indexed_at'"),
            ("verifications", "'indexed_at'"),
            ("generic_records", "'indexed_at'"),
            ("quotes", "'indexed_at'"),
            ("feed_items", "'indexed_at'"),
            ("post_aggregations", "'created_at', 'updated_at'"),
            ("penstock.waiting_counts", ""),
            ("penstock.stamps", ""),
            ("penstock.records", "'indexed_at'"),
        ] {
            let query = format!("SELECT to_jsonb(t) - ARRAY[{except}]::text[] AS row FROM {table} AS t ORDER BY 1");
            let rows = self.rows(&query).await;
            state.insert(table, rows.into_iter().map(|mut row| row["row"].take()).collect());
        }
        state
    }
}

const TEXT: &str = "2026-07-04T14:38:08.999Z";

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn entry(order: u64, event: Event) -> Entry {
    Entry { id: id(order), order: id(order), seq: Seq::new(order), event }
}

fn commit(order: u64, repo: &str, rev: Option<&str>, ops: Vec<Op>) -> Entry {
    let commit = Commit {
        repo: repo.to_owned(),
        rev: rev.map(str::to_owned),
        since: None,
        commit: None,
        time: penstock_core::time::parse("2026-07-04T15:00:00Z"),
        ops,
        missing: 0,
        proven: penstock_core::entry::Proven::default(),
    };
    entry(order, Event::Commit(commit))
}

/// A commit whose rev follows its order.
fn live(order: u64, repo: &str, ops: Vec<Op>) -> Entry {
    commit(order, repo, Some(&format!("3{order:012}")), ops)
}

fn fill(order: u64, repo: &str, ops: Vec<Op>) -> Entry {
    Entry { seq: None, ..commit(order, repo, None, ops) }
}

fn account(order: u64, did: &str, active: bool, status: Option<&str>) -> Entry {
    let status = status.map(str::to_owned);
    entry(order, Event::Account(Account { did: did.to_owned(), active, status, time: None }))
}

fn deleted(order: u64, did: &str) -> Entry {
    account(order, did, false, Some("deleted"))
}

fn identity(order: u64, did: &str, handle: Option<&str>) -> Entry {
    let handle = handle.map(str::to_owned);
    entry(order, Event::Identity(Identity { did: did.to_owned(), handle, time: None }))
}

fn put(path: &str, record: Value) -> Op {
    let (collection, rkey) = path.split_once('/').unwrap();
    Op {
        action: Action::Create,
        collection: collection.to_owned(),
        rkey: rkey.to_owned(),
        cid: Some(format!("bafy{}", record.to_string().len())),
        record: Some(record),
    }
}

fn delete(path: &str) -> Op {
    let (collection, rkey) = path.split_once('/').unwrap();
    Op { action: Action::Delete, collection: collection.to_owned(), rkey: rkey.to_owned(), cid: None, record: None }
}

fn like(rkey: &str, subject: &str) -> Op {
    put(&format!("app.bsky.feed.like/{rkey}"), json!({"subject": {"uri": subject, "cid": "c"}, "createdAt": TEXT}))
}

fn repost(rkey: &str, subject: &str) -> Op {
    put(&format!("app.bsky.feed.repost/{rkey}"), json!({"subject": {"uri": subject, "cid": "c"}, "createdAt": TEXT}))
}

fn post(rkey: &str, text: &str) -> Op {
    put(&format!("app.bsky.feed.post/{rkey}"), json!({"text": text, "createdAt": TEXT}))
}

fn post_uri(repo: &str, rkey: &str) -> String {
    format!("at://{repo}/app.bsky.feed.post/{rkey}")
}
