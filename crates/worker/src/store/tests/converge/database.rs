//! Cases on a real PostgreSQL.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::super::Db;
use super::history::{Case, REPOS, Step};
use super::model::{Tables, expected, key};
use super::records::{Kind, LONG_KEYS};
use crate::store::{ApplyError, HostAnswer, Store, StoreSettings};

/// How many workers a case is dealt to at most.
const WORKERS: usize = 4;

/// How many rows each of them derives at once from a post.
const PAGES: [u32; WORKERS] = [1, 2, 3, 5000];

/// A database that cases use one after the other, and the store of each worker.
pub(super) struct Database {
    runtime: Runtime,
    db: Db,
    stores: Vec<Store>,
    used: Cell<u32>,
    /// Rows of users that were pruned.
    pruned: Arc<AtomicI64>,
}

/// The tables, and the columns that do not follow from the events.
const TABLES: [(&str, &str); 34] = [
    ("users", "'indexed_at', 'search_vector'"),
    ("thread_gates", "'updated_at'"),
    ("post_gates", ""),
    ("posts", "'indexed_at', 'search_vector'"),
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
    ("notifications", "'id', 'indexed_at'"),
    ("thread_contexts", "'created_at', 'updated_at'"),
    ("post_viewer_states", "'created_at', 'updated_at'"),
    ("label_events", "'id', 'created_at'"),
    // These histories have no proofs: what is kept of them is in chains.rs. Of snapshots see snapshots.rs; healers write the last two.
    (
        "penstock.repos",
        "'root', 'sync', 'sync_at', 'snapshot_rev', 'snapshot_entry', 'writing_rev', 'writing_entry', 'writing_through', 'writing_fresh', 'proven_at', 'proven_rev'",
    ),
    ("penstock.profiles", ""),
    ("penstock.tombstones", ""),
    ("penstock.shadowed", ""),
    ("penstock.waiting_cids", ""),
    ("penstock.records", "'indexed_at'"),
    ("penstock.account_claims", ""),
];

/// The fields of `db:record_counts`, which are tables all.
pub(super) const FIELDS: [&str; 8] =
    ["users", "posts", "likes", "reposts", "follows", "blocks", "feed_items", "post_aggregations"];

/// How many cases leave their dead rows before the tables are made again.
const CASES_A_TRUNCATE: u32 = 64;

// === impl Database ===

impl Database {
    pub(super) fn new(delete_grace: Duration) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (db, stores) = runtime.block_on(async {
            let db = Db::with(|settings| settings.delete_grace = delete_grace).await;
            db.execute(
                "CREATE TABLE user_settings (user_did varchar(255) PRIMARY KEY, data_collection_forbidden bool)",
            )
            .await;
            let mut stores = Vec::new();
            for page in PAGES {
                let settings = StoreSettings { pool_size: 2, page, delete_grace, ..StoreSettings::new(&db.url) };
                stores.push(Store::connect(&settings).await.unwrap());
            }
            (db, stores)
        });
        Self { runtime, db, stores, used: Cell::new(0), pruned: Arc::default() }
    }

    /// Does something with the database and the store of each worker.
    pub(super) fn on<T>(&self, act: impl AsyncFnOnce(&Db, &[Store]) -> T) -> T {
        self.runtime.block_on(act(&self.db, &self.stores))
    }

    /// Returns what is stored, and the totals of the workers.
    pub(super) async fn held(&self) -> (Tables, BTreeMap<String, i64>) {
        (self.found().await, self.db.totals().await)
    }

    /// Empties every table.
    pub(super) fn empty(&self) {
        let names = TABLES.iter().map(|(name, _)| *name).chain([
            "penstock.counts",
            "penstock.sweeps",
            "penstock.account_claims",
            "user_settings",
        ]);
        self.pruned.store(0, Ordering::Relaxed);
        let used = self.used.get();
        self.used.set(used + 1);
        let sql = if used % CASES_A_TRUNCATE == CASES_A_TRUNCATE - 1 {
            format!("TRUNCATE {}", names.collect::<Vec<_>>().join(", "))
        } else {
            names.map(|name| format!("DELETE FROM {name};")).collect()
        };
        let emptied = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(self.db.store.pool());
        self.runtime.block_on(emptied).unwrap();
    }

    /// Runs the transactions of a case one after the other, in its order: the same case always ends the same.
    pub(super) fn converges_in_turn(&self, case: &Case) -> Result<(), String> {
        let stream = case.stream();
        let mut steps = case.steps(&stream);
        steps.extend(case.defers.then_some((0, Step::Pass)));
        self.runtime.block_on(async {
            for (worker, step) in &steps {
                take(&self.stores[*worker], *worker, step, &self.pruned).await?;
            }
            self.db.sweep().await;
            self.compare(&expected(case, &stream, &steps)).await
        })
    }

    /// Runs the transactions of a case as each worker comes to them.
    pub(super) fn converges_at_once(&self, case: &Case) -> Result<(), String> {
        let stream = case.stream();
        let mut hands = vec![Vec::new(); WORKERS];
        let mut steps = case.steps_at_once(&stream);
        for (worker, step) in &steps {
            hands[*worker].push(step.clone());
        }
        // When a row went does not follow from the case: each account is seen once more at the end.
        let again = Step::Apply(REPOS.map(|did| case.seen_again(did, &stream)).into());
        steps.sort_by_key(|(_, step)| !matches!(step, Step::OptOut(..)));
        steps.push((0, again.clone()));
        steps.extend(case.defers.then_some((0, Step::Pass)));
        self.runtime.block_on(async {
            let mut workers = JoinSet::new();
            for (worker, steps) in hands.into_iter().enumerate() {
                let store = self.stores[worker].clone();
                let pruned = Arc::clone(&self.pruned);
                workers.spawn(async move {
                    for step in steps {
                        take(&store, worker, &step, &pruned).await?;
                    }
                    Ok::<_, String>(())
                });
            }
            workers.join_all().await.into_iter().collect::<Result<(), _>>()?;
            take(&self.stores[0], 0, &again, &self.pruned).await?;
            if case.defers {
                take(&self.stores[0], 0, &Step::Pass, &self.pruned).await?;
            }
            self.db.sweep().await;
            self.compare(&expected(case, &stream, &steps)).await
        })
    }

    /// Compares every table with what it ought to hold, and the totals of the workers with the tables.
    async fn compare(&self, expected: &Tables) -> Result<(), String> {
        let found = self.found().await;
        let mut faults = Vec::new();
        for (name, _) in TABLES {
            let rows = |tables: &Tables| {
                let rows = tables.get(name).into_iter().flatten();
                let mut rows: Vec<String> = rows.map(Value::to_string).collect();
                rows.sort();
                rows
            };
            let (found, expected) = (rows(&found), rows(expected));
            let more = found.iter().filter(|row| !expected.contains(row));
            faults.extend(more.map(|row| format!("{name} has {row}")));
            let less = expected.iter().filter(|row| !found.contains(row));
            faults.extend(less.map(|row| format!("{name} lacks {row}")));
        }
        let totals = self.db.totals().await;
        for field in FIELDS {
            let rows = i64::try_from(found.get(field).map_or(0, Vec::len)).unwrap();
            let mut total = totals.get(field).copied().unwrap_or_default();
            if field == "users" {
                total -= self.pruned.load(Ordering::Relaxed);
            }
            if total != rows {
                faults.push(format!("{field} has {rows} rows and counts {total}"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    async fn found(&self) -> Tables {
        let selects = TABLES.map(|(name, except)| {
            let row = format!("to_jsonb(t) - ARRAY[{except}]::text[]");
            let (row, of) = match name {
                // Where no profile says it, it is when the row was made.
                "users" => (
                    format!("{row} || jsonb_build_object('created_at', nullif(t.created_at, t.indexed_at))"),
                    "".to_owned(),
                ),
                // The rows that stand for the subjects of verifications hold nothing.
                "penstock.repos" => (row, "WHERE did NOT LIKE 'subject:%'".to_owned()),
                // What a deletion of the account took may have left a tombstone: nothing looks at it.
                "penstock.tombstones" => {
                    let gone = "SELECT FROM penstock.repos AS r WHERE r.deleted_through >= t.entry_id \
                                AND r.did = split_part(t.uri, '/', 3)";
                    (row, format!("WHERE NOT EXISTS ({gone})"))
                }
                _ => (row, String::new()),
            };
            format!("SELECT '{name}' AS name, {row} AS row FROM {name} AS t {of}")
        });
        let sql = sqlx::AssertSqlSafe(selects.join(" UNION ALL "));
        let rows: Vec<(String, Value)> = sqlx::query_as(sql).fetch_all(self.db.store.pool()).await.unwrap();
        let mut tables = BTreeMap::new();
        for (name, mut row) in rows {
            if name == "penstock.shadowed" {
                let noted = matches!(row["kind"].as_str(), Some("likes" | "follows"));
                tidy(&mut row["row"], noted);
            }
            tables.entry(name).or_insert_with(Vec::new).push(row);
        }
        drop_unseen(&mut tables);
        tables
    }
}

/// Drops the tombstones that a deletion of the account took, of records whose URI is only there as a digest.
fn drop_unseen(tables: &mut Tables) {
    let paths = Kind::ALL
        .into_iter()
        .flat_map(|kind| LONG_KEYS.map(|len| format!("{}/{}", kind.collection(), "k".repeat(len))));
    let paths: Vec<String> = paths.collect();
    let owners: BTreeMap<String, &str> =
        REPOS.iter().flat_map(|did| paths.iter().map(move |path| (key(&format!("at://{did}/{path}")), *did))).collect();
    let repos = tables.get("penstock.repos").cloned().unwrap_or_default();
    let through = |did: &str| {
        let repo = repos.iter().find(|repo| repo["did"] == did)?;
        repo["deleted_through"].as_str()
    };
    if let Some(tombstones) = tables.get_mut("penstock.tombstones") {
        tombstones.retain(|row| {
            let owner = owners.get(row["uri"].as_str().unwrap());
            owner.and_then(|did| through(did)).is_none_or(|through| through < row["entry_id"].as_str().unwrap())
        });
    }
}

/// A row that stood and now waits has all its columns and PostgreSQL's times; one that never stood has those that are
/// written, and ours. A like or a follow keeps its CID where anybody could ever be notified of it.
fn tidy(row: &mut Value, noted: bool) {
    let fields = row.as_object_mut().unwrap();
    if noted {
        fields.remove("cid");
    }
    for name in ["uri", "commit_rev", "commit_seq", "indexed_at"] {
        fields.remove(name);
    }
    for name in ["created_at", "verified_at", "commit_time", "sort_at"] {
        if let Some(Value::String(time)) = fields.get_mut(name) {
            *time = time.trim_end_matches(".000000").to_owned();
        }
    }
}

/// Takes a step as a worker would: again, where others were in its way.
pub(super) async fn take(store: &Store, worker: usize, step: &Step, pruned: &AtomicI64) -> Result<(), String> {
    let name = format!("w{worker}");
    loop {
        let outcome = match step {
            Step::Apply(entries) => store.apply(&name, entries).await.map(|applied| applied.rejected),
            Step::Sweep(limit) => store.sweep_deleted(&name, *limit).await.map(|_| Vec::new()),
            Step::Prune(did) => {
                let prune = sqlx::query("DELETE FROM users WHERE did = $1").bind(did).execute(store.pool()).await;
                pruned.fetch_add(prune.unwrap().rows_affected().cast_signed(), Ordering::Relaxed);
                return Ok(());
            }
            Step::Pass => {
                let passes = "UPDATE penstock.account_claims SET since = since - interval '25 hours', due = due - interval '25 hours'";
                sqlx::query(passes).execute(store.pool()).await.unwrap();
                for claim in store.take_claims(100, 0, &[]).await.map_err(|error| format!("fails: {error:?}"))? {
                    let settled = store.settle_claim(&claim, &HostAnswer::Believed).await;
                    settled.map_err(|error| format!("fails: {error:?}"))?;
                }
                return Ok(());
            }
            Step::OptOut(did, forbids, last) => {
                let say = "INSERT INTO user_settings VALUES ($1, $2) ON CONFLICT (user_did) DO UPDATE \
                           SET data_collection_forbidden = excluded.data_collection_forbidden";
                sqlx::query(say).bind(did).bind(forbids).execute(store.pool()).await.unwrap();
                let obeyed = store.obey_opt_out(did, async || Some(*last)).await;
                return obeyed.map(drop).map_err(|error| format!("fails: {error:?}"));
            }
        };
        match outcome {
            Ok(rejected) if rejected.is_empty() => return Ok(()),
            Ok(rejected) => return Err(format!("refuses {rejected:?}")),
            Err(ApplyError::Retry { reason: "deadlock" | "race", .. }) => {}
            Err(error) => return Err(format!("fails: {error:?}")),
        }
    }
}
