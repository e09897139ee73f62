//! What one bad entry costs its batch, what locks cost, and what a database that takes nothing costs.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgPool;

use super::bench::{Bench, REFUSE_POISON, commit, custom_op, eventually};

/// How many entries the batch of the promise has.
const BATCH: usize = 5000;

/// Refuses poison when the transaction is committed, and no sooner.
const REFUSE_AT_COMMIT: &str = "
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN RAISE EXCEPTION 'no poison' USING ERRCODE = '23514'; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON generic_records DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW WHEN (NEW.record->>'poison' IS NOT NULL) EXECUTE FUNCTION refuse()";

/// Writes one batch of 5,000 entries, some of them poison, and returns how many transactions its rows and its letters
/// took: those whose rows stand, and all that were rolled back. What the upkeep reads meanwhile is neither.
async fn transactions(poison: &[usize], refuse: &'static str) -> i64 {
    let bench = Bench::new().await;
    bench.execute(refuse).await;
    bench.make_group().await;
    let mut from = 0;
    for bad in poison.iter().copied().chain([BATCH]) {
        bench.add_likes(from..bad, 250).await;
        if bad < BATCH {
            bench.add("commit", &commit("bad", &format!("3k{bad:011}"), &[custom_op(bad, true)]), "9").await;
        }
        from = bad + 1;
    }
    let (server, name) = bench.database.rsplit_once('/').unwrap();
    let elsewhere = PgPool::connect_lazy(&format!("{server}/postgres")).unwrap();
    let sql = "SELECT xact_rollback, numbackends FROM pg_stat_database WHERE datname = $1";
    let (before, _): (i64, i32) = sqlx::query_as(sql).bind(name).fetch_one(&elsewhere).await.unwrap();
    // Nothing else is to ask for anything meanwhile.
    let quiet = [
        ("worker.batchSize", "5000"),
        ("worker.batchDelay", "10s"),
        ("worker.publishInterval", "1m"),
        ("worker.checkpointInterval", "1h"),
    ];
    let worker = bench.start("w-0", &quiet);
    let good = i64::try_from(BATCH - poison.len()).unwrap();
    eventually!(bench.total().await == good && bench.dead_letters().await.len() == poison.len());
    assert_eq!(bench.rows("likes").await, good);
    worker.stop().await.unwrap();
    assert_eq!(bench.pending().await, 0);

    let written = "SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM likes
        UNION ALL SELECT xmin FROM generic_records UNION ALL SELECT xmin FROM penstock.dead_letters) AS rows";
    let committed: i64 = sqlx::query_scalar(written).fetch_one(&bench.pool).await.unwrap();
    bench.pool.close().await;
    let mut rolled_back = 0;
    // A connection tells what it did once it has ended.
    eventually!({
        let (total, connections): (i64, i32) = sqlx::query_as(sql).bind(name).fetch_one(&elsewhere).await.unwrap();
        rolled_back = rolled_back.max(total - before);
        connections == 0
    });
    committed + rolled_back
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poison_entry_of_5000_costs_at_most_30_transactions() {
    let clean = transactions(&[], REFUSE_POISON).await;
    let one = transactions(&[1233], REFUSE_POISON).await;
    assert!(one > clean && one <= clean + 30, "{clean} without, {one} with one poison entry");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_poison_entries_refused_at_commit_are_found_as_well() {
    let clean = transactions(&[], REFUSE_AT_COMMIT).await;
    let five = transactions(&[0, 1233, 1234, 3000, 4999], REFUSE_AT_COMMIT).await;
    assert!(five > clean && five <= clean + 5 * 30, "{clean} without, {five} with five poison entries");
}

/// A disk that is full: when rows are inserted, or only when the transaction is committed.
const FULL: [(&str, &str); 2] = [
    (
        "
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON likes FOR EACH STATEMENT EXECUTE FUNCTION full_disk()",
        "DROP FUNCTION full_disk CASCADE",
    ),
    (
        "
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
    CREATE CONSTRAINT TRIGGER full_disk AFTER INSERT ON likes DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION full_disk()",
        "DROP FUNCTION full_disk CASCADE",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_acknowledges_nothing_and_buries_nothing() {
    for (fill, empty) in FULL {
        let bench = Bench::new().await;
        let worker = bench.start("w-0", &[("worker.batchSize", "100"), ("worker.checkpointInterval", "50ms")]);
        bench.add_likes(0..50, 10).await;
        eventually!(bench.total().await == 50);
        bench.execute(fill).await;
        bench.add_likes(50..1000, 10).await;
        eventually!(worker.metric("penstock_worker_retries_total{reason=\"disk full\"}") as u64 >= 5);
        assert!(!worker.health.is_ready() && worker.health.is_alive());
        assert_eq!((bench.total().await, bench.rows("likes").await), (50, 50));
        assert!(bench.pending().await > 0);
        bench.execute(empty).await;
        eventually!(bench.total().await == 1000);
        assert_eq!(bench.rows("likes").await, 1000);
        assert_eq!((bench.dead_letters().await.len(), bench.rows("penstock.dead_letters").await), (0, 0));
        assert_eq!(worker.metric("penstock_dead_letters_total"), 0.0);
        eventually!(worker.health.is_ready());
        worker.stop().await.unwrap();
    }
}

const REPOS: usize = 12;
const POSTS: usize = 24;

/// A repo's like of a post that all repos like.
fn hot_like(repo: usize, post: usize) -> String {
    let op = format!(
        r#"{{"action":"create","path":"app.bsky.feed.like/k{post}","cid":"bafyl","record":{{"$type":"app.bsky.feed.like","subject":{{"uri":"{}","cid":"bafyp"}},"createdAt":"2026-07-04T14:38:08.999Z"}}}}"#,
        hot_post(post)
    );
    commit(&format!("r{repo:02}"), &format!("3k{post:011}"), &[op])
}

fn hot_post(post: usize) -> String {
    format!("at://did:plc:z/app.bsky.feed.post/p{post:02}")
}

/// Takes two locks as no worker does, the last one first, once a worker waits in between: one of them must give way.
async fn meet(pool: &PgPool, first: &'static str, second: &'static str) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::raw_sql("SET LOCAL deadlock_timeout = '3s'").execute(&mut *tx).await?;
    sqlx::raw_sql(first).execute(&mut *tx).await?;
    for _ in 0..200 {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        if sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *tx).await? > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sqlx::raw_sql(second).execute(&mut *tx).await?;
    tx.rollback().await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_on_the_same_hot_rows_and_a_client_that_locks_them_backwards_end_exact() {
    let bench = Bench::new().await;
    let (_, name) = bench.database.rsplit_once('/').unwrap();
    let hasty = sqlx::AssertSqlSafe(format!("ALTER DATABASE {name} SET deadlock_timeout = '300ms'"));
    sqlx::raw_sql(hasty).execute(&bench.pool).await.unwrap();
    // Every second post is there, as the AppView makes one; what counts for the others waits.
    for post in (0..POSTS).step_by(2) {
        let uri = hot_post(post);
        let made = "WITH made AS (INSERT INTO public.posts (uri, cid, author_did, text, created_at)
                      VALUES ($1, 'c', 'did:plc:z', 't', now()))
                    INSERT INTO public.post_aggregations (post_uri) VALUES ($1)";
        sqlx::query(made).bind(uri).execute(&bench.pool).await.unwrap();
    }
    // Every second time the repos come in the opposite order.
    let add = async |posts: std::ops::Range<usize>| {
        for post in posts {
            for repo in 0..REPOS {
                let repo = if post % 2 == 0 { repo } else { REPOS - 1 - repo };
                bench.add("commit", &hot_like(repo, post), "7").await;
            }
        }
    };
    add(0..2).await;
    // Two transactions of each run at once.
    let start = |number| bench.start(&format!("w-{number}"), &[("worker.batchSize", "9")]);
    let workers: Vec<_> = (0..4).map(start).collect();
    eventually!(bench.total().await == 2 * REPOS as i64);
    let foreign = PgPool::connect_lazy(&bench.database).unwrap();
    let deadlocks = || {
        let of = |worker: &super::bench::Running| worker.metric("penstock_worker_retries_total{reason=\"deadlock\"}");
        workers.iter().map(of).sum::<f64>()
    };
    let repos = (
        "SELECT FROM penstock.repos WHERE did = 'did:plc:r11' FOR UPDATE",
        "SELECT FROM penstock.repos WHERE did = 'did:plc:r00' FOR UPDATE",
    );
    let counts = (
        "SELECT FROM public.post_aggregations WHERE post_uri LIKE '%/p00' FOR UPDATE;
         SELECT FROM penstock.waiting_counts WHERE post_uri LIKE '%/p01' FOR UPDATE",
        "SELECT FROM penstock.repos WHERE did LIKE 'did:plc:r%' ORDER BY did DESC FOR UPDATE",
    );
    let mut refused = 0;
    let mut posts = 2;
    // Whom the server refuses, and how often, is not ours to say; the end is exact either way.
    while posts < POSTS {
        let (first, second) = if posts % 4 == 0 { repos } else { counts };
        let more = posts..(posts + 2).min(POSTS);
        posts = more.end;
        let (met, ()) = tokio::join!(meet(&foreign, first, second), add(more));
        refused += u32::from(met.is_err());
    }
    println!("deadlocks: workers met {}, the other {refused}", deadlocks());

    let likes = (REPOS * POSTS) as i64;
    eventually!(bench.total().await == likes, "{} of {likes}", bench.total().await);
    assert_eq!(bench.rows("likes").await, likes);
    let counts: Vec<(String, i32)> =
        sqlx::query_as("SELECT post_uri, like_count FROM public.post_aggregations UNION ALL SELECT post_uri, like_count FROM penstock.waiting_counts").fetch_all(&bench.pool).await.unwrap();
    let counts: HashMap<_, _> = counts.into_iter().collect();
    let expected: HashMap<_, _> = (0..POSTS).map(|post| (hot_post(post), REPOS as i32)).collect();
    assert_eq!(counts, expected);
    for (field, count) in [("likes", likes), ("users", REPOS as i64), ("post_aggregations", POSTS as i64 / 2)] {
        eventually!(bench.counter("db:record_counts", field).await == count, "{field}");
    }
    assert_eq!(bench.rows("penstock.shadowed").await, 0);
    for worker in workers {
        worker.stop().await.unwrap();
    }
    assert_eq!((bench.dead_letters().await.len(), bench.pending().await), (0, 0));
}
