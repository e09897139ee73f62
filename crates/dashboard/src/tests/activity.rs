//! What came in and what was applied, tables and memory, from a real Redis and a real PostgreSQL.

use fred::interfaces::{ClientLike, ConfigInterface, HashesInterface, KeysInterface, ListInterface};
use fred::types::{CustomCommand, Value as RedisValue};
use jiff::Timestamp;
use penstock_core::starts::{self, Started};
use penstock_local::testing::{TestRedis, fresh_database};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

use super::client::get;
use super::{Dashboard, until};

fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap()
}

/// The point whose span begins with a minute.
fn point(answer: &Value, minute: u64) -> Value {
    let points = answer["points"].as_array().unwrap();
    points.iter().find(|point| point["timestamp"] == minute * 60_000).cloned().unwrap_or(Value::Null)
}

#[tokio::test]
async fn what_came_in_stands_beside_what_was_applied_and_missing_minutes_are_null() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let keys = dashboard.keys();
    let minute = now() / 60;
    for ago in (1..=30).filter(|ago| *ago != 20) {
        let counts = vec![("commit", "60"), ("identity", "6"), ("incoming", "120")];
        let () = client.hset(keys.activity(minute - ago), counts).await.unwrap();
    }
    let () = client.hset(keys.activity(minute), vec![("commit", "1")]).await.unwrap();
    let started = Started { at: (minute - 5) * 60_000, ..Started::now("worker", "w-7") };
    starts::note(&client, keys, &started).await.unwrap();
    let earlier = Started { at: (minute - 500) * 60_000, ..started.clone() };
    starts::note(&client, keys, &earlier).await.unwrap();

    let answer = get(dashboard.address, "/api/activity?seconds=3600").await;
    answer.fits("GET", "/api/activity");
    let answer = answer.json();
    assert_eq!(answer["keptSeconds"], 90_000);
    let whole = point(&answer, minute - 10);
    assert_eq!(
        (&whole["seconds"], &whole["incoming"], &whole["commit"], &whole["identity"], &whole["account"]),
        (&json!(60.0), &json!(2.0), &json!(1.0), &json!(0.1), &json!(0.0))
    );
    for gap in [19, 20, 21, 30, 45] {
        let point = point(&answer, minute - gap);
        assert_eq!((&point["incoming"], &point["commit"]), (&Value::Null, &Value::Null), "{gap} minutes ago");
    }
    assert_eq!(point(&answer, minute), Value::Null, "it still runs");
    let mark =
        json!({"timestamp": started.at, "service": "worker", "instance": "w-7", "version": env!("CARGO_PKG_VERSION")});
    assert_eq!(answer["marks"], json!([mark]));

    // A part of it, with an end; and a range that is longer than what is kept.
    let until = (minute - 8) * 60;
    let part = get(dashboard.address, &format!("/api/activity?seconds=120&until={until}")).await.json();
    assert_eq!(part["points"].as_array().unwrap().len(), 2);
    let week = get(dashboard.address, "/api/activity?seconds=604800").await.json();
    let points = week["points"].as_array().unwrap();
    assert!((600..=750).contains(&points.len()), "{}", points.len());
    assert!(points.iter().any(|point| point["commit"] == 1.0), "the minutes around the gaps");
    assert_eq!(week["marks"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_minute_that_is_over_is_read_once_and_a_longer_retention_reaches_further() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[("redis.activityRetention", "8d")]).await;
    let minute = now() / 60;
    let old = minute - 6 * 1_440;
    for minute in old - 1..=old + 31 {
        let () = client.hset(dashboard.keys().activity(minute), vec![("commit", "60")]).await.unwrap();
    }
    let path = format!("/api/activity?seconds=1200&until={}", (old + 30) * 60);
    let seen = get(dashboard.address, &path).await.json();
    assert_eq!(point(&seen, old + 20)["commit"], 1.0, "{seen}");
    assert_eq!(seen["keptSeconds"], 8 * 86_400);
    let () = client.del(dashboard.keys().activity(old + 20)).await.unwrap();
    assert_eq!(get(dashboard.address, &path).await.json()["points"], seen["points"]);
}

#[tokio::test]
async fn the_last_minutes_are_finer_than_minutes() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let field = "#commit";
    until("there are points of seconds", async || {
        let () = client.hincrby(dashboard.keys().cluster_metrics(), field, 1).await.unwrap();
        let answer = get(dashboard.address, "/api/activity?seconds=600").await.json();
        let fine = |point: &Value| point["seconds"].as_f64().unwrap() < 20.0 && point["commit"].as_f64() > Some(0.0);
        answer["points"].as_array().unwrap().iter().any(fine)
    })
    .await;
}

#[tokio::test]
async fn a_range_that_is_none_is_refused() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    for query in ["seconds=59", "seconds=x", "seconds=7776001", "until=-1", "until=now", "seconds=60&seconds=70"] {
        let refused = get(dashboard.address, &format!("/api/activity?{query}")).await;
        assert_eq!(refused.problem(), 400, "{query}");
        let name = query.split('=').next().unwrap();
        assert!(refused.json()["detail"].as_str().unwrap().contains(name), "{query}: {}", refused.body);
    }
}

#[tokio::test]
async fn tables_show_their_size_an_estimate_of_rows_and_their_growth() {
    let database = fresh_database().await.unwrap();
    let mut connection = PgConnection::connect(&database).await.unwrap();
    connection
        .execute("CREATE TABLE posts (uri text PRIMARY KEY); INSERT INTO posts SELECT n::text FROM generate_series(1, 5000) n")
        .await
        .unwrap();
    connection.execute("ANALYZE posts").await.unwrap();
    connection.execute("CREATE TABLE fresh (a int)").await.unwrap();
    let redis = TestRedis::start().await.unwrap();
    let plain = Dashboard::start(&redis.url(), &[]).await;
    plain.until_seen().await;
    assert_eq!(get(plain.address, "/api/tables").await.problem(), 404);
    let client = plain.redis().await;
    let two_hours_ago = json!({"at": now() - 7_200, "bytes": [["posts", 8_192]]});
    let () = client.lpush(plain.keys().table_sizes(), two_hours_ago.to_string()).await.unwrap();

    // The first look may come before Redis was seen; then growth comes with the next.
    let dashboard = Dashboard::start(&redis.url(), &[("postgres.url", &database)]).await;
    dashboard.until_seen().await;
    until("the tables are there", async || get(dashboard.address, "/api/tables").await.json()["timestamp"].is_number())
        .await;
    let answer = get(dashboard.address, "/api/tables").await;
    answer.fits("GET", "/api/tables");
    let answer = answer.json();
    let tables = answer["tables"].as_array().unwrap();
    let named = |name: &str| tables.iter().find(|table| table["name"] == name).unwrap().clone();
    let posts = named("posts");
    assert_eq!(posts["rowsEstimate"], 5_000);
    assert!(posts["bytes"].as_u64().unwrap() > 100_000, "{posts}");
    assert_eq!(named("fresh")["rowsEstimate"], Value::Null, "never analysed is not empty");
    assert_eq!(named("fresh")["bytesPerDay"], Value::Null);
    let grown = posts["bytesPerDay"].as_i64().unwrap();
    let expected = (posts["bytes"].as_i64().unwrap() - 8_192) * 12;
    assert!((grown - expected).abs() < expected / 20, "{grown} instead of {expected}");
    let kept: Vec<String> = client.lrange(plain.keys().table_sizes(), 0, -1).await.unwrap();
    assert_eq!(kept.len(), 2, "one sample an hour");
}

#[tokio::test]
async fn the_memory_of_redis_is_shown_with_its_limit_or_none_or_as_unknown() {
    let (dashboard, redis, client) = Dashboard::with_redis(&[]).await;
    let memory = async |dashboard: &Dashboard| get(dashboard.address, "/api/metrics").await.json()["redis"].clone();
    let shown = memory(&dashboard).await;
    assert!(shown["usedBytes"].as_u64() > Some(100_000), "{shown}");
    assert_eq!(shown["maxBytes"], Value::Null, "no limit");
    let () = client.config_set("maxmemory", "50mb").await.unwrap();
    let limited = Dashboard::start(&redis.url(), &[]).await;
    limited.until_seen().await;
    assert_eq!(memory(&limited).await["maxBytes"], 50 * 1024 * 1024);

    // A user who may do everything but ask.
    let rules = vec!["SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-info"];
    let _: RedisValue = client.custom(CustomCommand::new("ACL", None, false), rules).await.unwrap();
    let url = redis.url().replace("redis://", "redis://reader:secret@");
    let refused = Dashboard::start(&url, &[]).await;
    refused.until_seen().await;
    assert_eq!(memory(&refused).await, Value::Null);
}
