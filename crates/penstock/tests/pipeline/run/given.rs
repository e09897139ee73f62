//! Servers that are given: a live relay is read live, and its oldest events have a price.

use std::num::NonZeroU32;

use fred::clients::Client;
use fred::interfaces::StreamsInterface;
use jiff::Timestamp;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::{TempFolder, TestRedis, fresh_database};
use penstock_replay::Rate;
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use super::Run;

/// Events that the relay has had when it starts.
const BACKLOG: u64 = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_live_relay_is_read_live_into_the_servers_that_are_given_for_the_time_that_is_given() {
    let (url, cancel) = relay().await;
    let (folder, redis, database) = (TempFolder::new().unwrap(), redis().await, fresh_database().await.unwrap());
    let given = ["--relay", &url, "--redis-url", &redis.url(), "--database-url", &database, "--for", "4s"];
    let run = Run::with(folder.path(), &given, &[("DASHBOARD_ADDRESS", "127.0.0.1:0")]);
    let (ended, said, log) = run.wait_for_its_end().await;
    assert!(ended.success(), "{ended}: {log}");
    for words in [
        format!("{url} (from --relay)"),
        format!("{} (from --redis-url)", redis.url()),
        "(from --database-url)".to_owned(),
        "after 4s (--for)".to_owned(),
        "4s elapsed".to_owned(),
    ] {
        assert!(said.iter().any(|line| line.contains(&words)), "{words}: {said:#?}");
    }
    assert!(!said.iter().any(|line| line.starts_with("oldest")), "{said:#?}");
    assert!(!folder.path().join("redis").exists() && !folder.path().join("postgres").exists());
    assert!(first_seq(&redis).await > BACKLOG);
    let mut postgres = PgConnection::connect(&database).await.unwrap();
    let posts: i64 = sqlx::query_scalar("SELECT count(*) FROM posts").fetch_one(&mut postgres).await.unwrap();
    assert!(posts > 0);
    cancel.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_is_read_when_asked_for_and_its_price_is_told_before() {
    let (url, cancel) = relay().await;
    let (folder, redis, database) = (TempFolder::new().unwrap(), redis().await, fresh_database().await.unwrap());
    let given = ["--relay", &url, "--redis-url", &redis.url(), "--database-url", &database, "--from", "oldest"];
    let given = [&given[..], &["--total", "600"]].concat();
    let mut run = Run::with(folder.path(), &given, &[("DASHBOARD_ADDRESS", "127.0.0.1:0")]);
    let price = run.rest("oldest").await;
    assert!(
        ["about 5", "events", "MB of disk", "hours to catch up"].iter().all(|word| price.contains(word)),
        "{price}"
    );
    let (ended, _, log) = run.wait_for_its_end().await;
    assert!(ended.success(), "{ended}: {log}");
    assert_eq!(first_seq(&redis).await, 1);

    let mut run = Run::with(folder.path(), &given, &[("DASHBOARD_ADDRESS", "127.0.0.1:0")]);
    let told = run.rest("oldest").await;
    assert!(told.contains("resumes after event"), "{told}");
    let (ended, _, log) = run.wait_for_its_end().await;
    assert!(ended.success(), "{ended}: {log}");
    cancel.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_program_is_refused_before_anything_is_changed() {
    let (folder, database) = (TempFolder::new().unwrap(), fresh_database().await.unwrap());
    let mut postgres = PgConnection::connect(&database).await.unwrap();
    sqlx::query("CREATE TABLE posts (id int, title text)").execute(&mut postgres).await.unwrap();
    let run = Run::with(folder.path(), &["--database-url", &database], &[("DASHBOARD_ADDRESS", "127.0.0.1:0")]);
    let (ended, _, log) = run.wait_for_its_end().await;
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(log.contains("posts (missing uri, ") && log.contains("nothing was changed"), "{log}");
    let columns = "SELECT string_agg(format('%s.%s', table_name, column_name), ' ' ORDER BY column_name)
        FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')";
    let columns: String = sqlx::query_scalar(columns).fetch_one(&mut postgres).await.unwrap();
    assert_eq!(columns, "posts.id posts.title");
}

async fn relay() -> (String, CancellationToken) {
    let rate = Rate::PerSecond(NonZeroU32::new(300).unwrap());
    let live_since = Some(Timestamp::now());
    let settings = penstock_replay::Settings { rate, backlog: BACKLOG, live_since, ..Default::default() };
    let relay = penstock_replay::bind(settings).await.unwrap();
    let (url, cancel) = (format!("ws://{}", relay.local_addr()), CancellationToken::new());
    tokio::spawn(relay.run(cancel.clone()));
    (url, cancel)
}

/// A Redis whose stream has another reader, which keeps it whole.
async fn redis() -> TestRedis {
    let redis = TestRedis::start().await.unwrap();
    let (client, settings) = client(&redis).await;
    let () = client.xgroup_create(settings.keys.stream(), "osprey-consumers", "0", true).await.unwrap();
    redis
}

async fn client(redis: &TestRedis) -> (Client, Settings) {
    let settings = Settings::load(&Layers::default().flag("redis.url", redis.url())).unwrap();
    (penstock_core::redis::connect(&settings).await.unwrap(), settings)
}

/// The number of the first entry that was written.
async fn first_seq(redis: &TestRedis) -> u64 {
    let (client, settings) = client(redis).await;
    let entries: Vec<(String, std::collections::HashMap<String, String>)> =
        client.xrange_values(settings.keys.stream(), "-", "+", Some(1)).await.unwrap();
    entries[0].1["seq"].parse().unwrap()
}
