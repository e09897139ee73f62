//! The store on a real PostgreSQL.

mod claims;
mod converge;
mod counts;
mod derived;
mod fixtures;
mod migrations;
mod opt_outs;
mod pairs;
mod relocate;
mod silence;
mod times;
mod users;

use std::collections::BTreeMap;

use penstock_core::data::Action;
use penstock_core::entry::{Account, Commit, Entry, Event, Identity, Op};
use penstock_core::stream::{Seq, StreamId};
use serde_json::{Value, json};

use super::{Applied, Store, StoreSettings};
use crate::schema;

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

    async fn sweep(&self) {
        while self.store.sweep_deleted("w1", 2).await.unwrap().more {}
    }

    /// Returns the rows of a query as JSON.
    async fn rows(&self, query: &str) -> Vec<Value> {
        let sql = format!("SELECT to_jsonb(t) FROM ({query}) AS t");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(self.store.pool()).await.unwrap()
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
