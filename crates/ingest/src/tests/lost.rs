//! A Redis that lost what was written to it, and the checkpoint in PostgreSQL.

use fred::types::CustomCommand;
use penstock_core::stream::StreamId;
use penstock_local::testing::{TestPostgres, fresh_database};

use super::*;

pub(super) const TABLES: &str = "\
CREATE SCHEMA penstock;
CREATE TABLE penstock.checkpoint (
  host text COLLATE \"C\" PRIMARY KEY, seq bigint NOT NULL, stream_id text NOT NULL,
  updated_at timestamp NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE penstock.meta (key text COLLATE \"C\" PRIMARY KEY, value text NOT NULL);
INSERT INTO penstock.meta VALUES ('incarnation', 'here');";

/// A rig with a database that the workers fill.
struct Remembering {
    rig: Rig,
    frames: Vec<Bytes>,
    host: String,
    postgres: PgConnection,
}

async fn remembering(replay: penstock_replay::Settings) -> Remembering {
    let frames = frames(&replay);
    let address = serve(replay).await;
    let mut rig = Rig::new(address).await;
    let postgres = rig.set_database(&fresh_database().await.unwrap(), TABLES).await;
    Remembering { rig, frames, host: address.to_string(), postgres }
}

pub(super) async fn checkpoint(postgres: &mut PgConnection, host: &str, seq: i64, stream_id: &str) {
    let insert = "INSERT INTO penstock.checkpoint (host, seq, stream_id) VALUES ($1, $2, $3)";
    sqlx::query(insert).bind(host).bind(seq).bind(stream_id).execute(postgres).await.unwrap();
}

async fn incarnation(rig: &Rig) -> Option<String> {
    rig.client.get("firehose:incarnation").await.unwrap()
}

async fn last_id(rig: &Rig) -> StreamId {
    let last: Vec<(String, Vec<(String, Bytes)>)> =
        rig.client.xrevrange("firehose:events", "+", "-", Some(1)).await.unwrap();
    last[0].0.parse().unwrap()
}

fn paced(total: u64) -> penstock_replay::Settings {
    penstock_replay::Settings { rate: Rate::PerSecond(1_000.try_into().unwrap()), ..replay(total) }
}

/// Has everything written once, stops, and keeps a checkpoint at 400 of 1,000.
async fn written() -> (Rig, Vec<Bytes>, PgConnection) {
    let Remembering { rig, frames, host, mut postgres } = remembering(replay(1_000)).await;
    let running = rig.start();
    rig.reaches(1_000).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
    assert_eq!(incarnation(&rig).await.as_deref(), Some("here"), "set with the first batch");
    checkpoint(&mut postgres, &host, 400, "1-0").await;
    (rig, frames, postgres)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_flushed_while_running_is_filled_from_the_checkpoint() {
    let Remembering { rig, frames, host, mut postgres } = remembering(paced(3_000)).await;
    let running = rig.start();
    eventually("events", async || running.progress.published() > 300).await;
    checkpoint(&mut postgres, &host, 200, "1-0").await;
    let before = last_id(&rig).await;
    let flush = CustomCommand::new_static("FLUSHALL", None, false);
    let _: String = rig.client.custom(flush, Vec::<String>::new()).await.unwrap();
    rig.reaches(3_000).await;
    running.stop().await;
    rig.holds_exactly(&frames[200..]).await;
    let first = rig.entries().await[0].0.clone();
    assert!(first.parse::<StreamId>().unwrap() > before);
    let source: String = rig.client.get("firehose:ingest:source").await.unwrap();
    let source: Source = serde_json::from_str(&source).unwrap();
    let expected = (host, first, Some("firehose:python_cursor".to_owned()));
    assert_eq!((source.host, source.first_id, source.cursor_key), expected);
    assert_eq!(incarnation(&rig).await.as_deref(), Some("here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_restarted_without_its_data_is_filled_from_the_checkpoint() {
    let Remembering { mut rig, frames, host, mut postgres } = remembering(paced(3_000)).await;
    rig.set("redis.commandTimeout", "1s");
    let running = rig.start();
    eventually("events", async || running.progress.published() > 300).await;
    checkpoint(&mut postgres, &host, 250, "1-0").await;
    rig.redis.restart_empty().await.unwrap();
    rig.reaches(3_000).await;
    running.stop().await;
    rig.holds_exactly(&frames[250..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_gone_is_filled_from_the_checkpoint_whatever_the_cursor_says() {
    let (rig, frames, _postgres) = written().await;
    let _: u64 = rig.client.del("firehose:events").await.unwrap();
    let expected = events(&frames[400..]).len() as u64;
    let running = rig.start();
    eventually("the events", async || rig.client.xlen::<u64, _>("firehose:events").await.unwrap() == expected).await;
    running.stop().await;
    rig.holds_exactly(&frames[400..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_of_another_database_is_read_on_from_the_checkpoint() {
    let (rig, frames, _postgres) = written().await;
    let _: () = rig.client.set("firehose:incarnation", "elsewhere", None, None, false).await.unwrap();
    let again = [&frames[..], &frames[400..]].concat();
    let running = rig.start();
    let expected = events(&again).len() as u64;
    eventually("the events", async || rig.client.xlen::<u64, _>("firehose:events").await.unwrap() == expected).await;
    running.stop().await;
    rig.holds_exactly(&again).await;
    assert_eq!(incarnation(&rig).await.as_deref(), Some("here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_find_redis_lost_send_a_running_ingest_back() {
    // Long enough for something to be still to come, however slow this machine is.
    let Remembering { rig, frames, host, mut postgres } = remembering(paced(10_000)).await;
    let running = rig.start();
    eventually("events", async || running.progress.published() > 300).await;
    checkpoint(&mut postgres, &host, 100, "1-0").await;
    let _: u64 = rig.client.del("firehose:incarnation").await.unwrap();
    eventually("the refusal", async || {
        running.count("penstock_ingest_publishes_refused_total{reason=\"incarnation\"}") >= 1
    })
    .await;
    rig.reaches(10_000).await;
    running.stop().await;
    let entries = rig.entries().await;
    let again = entries.windows(2).position(|pair| pair[1].3 < pair[0].3).unwrap() + 1;
    let seqs: Vec<u64> = entries[again..].iter().map(|entry| entry.3).collect();
    let expected: Vec<u64> = events(&frames[100..]).iter().map(|event| event.seq).collect();
    assert_eq!(seqs, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_of_other_hosts_only_lead_to_the_oldest_event() {
    let (mut rig, frames) = Rig::serving(replay(500)).await;
    rig.set("relay.start", "live");
    let mut postgres = rig.set_database(&fresh_database().await.unwrap(), TABLES).await;
    checkpoint(&mut postgres, "elsewhere.test", 400, "1-0").await;
    let running = rig.start();
    rig.reaches(500).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_redis_is_filled_from_the_relay_that_the_newest_checkpoint_names() {
    let (first, second) = (replay(500), penstock_replay::Settings { start_seq: Some(10_001), ..replay(500) });
    let frames = frames(&second);
    let (first, second) = (serve(first).await, serve(second).await);
    let mut rig = Rig::with(TestRedis::start().await.unwrap(), &format!("ws://{first},ws://{second}")).await;
    let mut postgres = rig.set_database(&fresh_database().await.unwrap(), TABLES).await;
    checkpoint(&mut postgres, &first.to_string(), 20, "1-0").await;
    checkpoint(&mut postgres, &second.to_string(), 10_100, "1-0").await;
    let running = rig.start();
    rig.reaches(10_500).await;
    running.stop().await;
    rig.holds_exactly(&frames[100..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_redis_waits_for_postgresql() {
    let replay = replay(500);
    let frames = frames(&replay);
    let address = serve(replay).await;
    let mut rig = Rig::new(address).await;
    let mut postgres = TestPostgres::start().await.unwrap();
    let mut connection = rig.set_database(&postgres.fresh_database().await.unwrap(), TABLES).await;
    checkpoint(&mut connection, &address.to_string(), 300, "1-0").await;
    drop(connection);
    postgres.stop().await.unwrap();
    let running = rig.start();
    eventually("the wait", async || running.count("penstock_ingest_lease_held") == 1 && !running.health.is_ready())
        .await;
    assert_eq!(rig.cursor().await, None);
    postgres.restart().await.unwrap();
    rig.reaches(500).await;
    eventually("readiness", async || running.health.is_ready()).await;
    running.stop().await;
    rig.holds_exactly(&frames[300..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_redis_needs_no_postgresql() {
    let (mut rig, frames) = Rig::serving(replay(1_000)).await;
    // Nobody listens there.
    rig.set("postgres.url", "postgres://127.0.0.1:1/nothing");
    let entry = vec![("type", "commit"), ("data", "{}"), ("seq", "600")];
    let _: String = rig.client.xadd("firehose:events", false, None, "*", entry).await.unwrap();
    let _: () = rig.client.set("firehose:python_cursor", "600", None, None, false).await.unwrap();
    let _: () = rig.client.set("firehose:incarnation", "somewhere", None, None, false).await.unwrap();
    let running = rig.start();
    rig.reaches(1_000).await;
    assert!(running.health.is_ready());
    running.stop().await;
    let seqs: Vec<u64> = rig.entries().await.iter().skip(1).map(|entry| entry.3).collect();
    assert_eq!(seqs, events(&frames[600..]).iter().map(|event| event.seq).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_do_not_go_back_although_the_clock_does() {
    for made_by_a_worker in [false, true] {
        let Remembering { rig, frames, host, mut postgres } = remembering(replay(500)).await;
        let ahead = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap() + 3_600_000;
        let floor = StreamId { ms: ahead, seq: 7 };
        checkpoint(&mut postgres, &host, 200, &floor.to_string()).await;
        if made_by_a_worker {
            let _: () = rig.client.xgroup_create("firehose:events", "firehose-processors", "0", true).await.unwrap();
        }
        let running = rig.start();
        rig.reaches(500).await;
        running.stop().await;
        let ids: Vec<StreamId> = rig.entries().await.iter().map(|entry| entry.0.parse().unwrap()).collect();
        assert_eq!(ids[0], floor.next());
        assert!(ids.is_sorted());
        assert_eq!(ids.len(), events(&frames[200..]).len());
    }
}

/// A Redis that was failed over to lacks the newest entries, and its clock is behind: here by an hour.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_new_process_do_not_go_below_those_that_were_applied() {
    let Remembering { rig, frames, mut postgres, .. } = remembering(paced(3_000)).await;
    let running = rig.start();
    eventually("events", async || running.progress.published() > 300).await;
    running.stop().await;
    let written = rig.entries().await.len();
    let ahead = jiff::Timestamp::now().as_millisecond() + 3_600_000;
    let reserve =
        "INSERT INTO penstock.meta VALUES ('reserved', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    sqlx::query(reserve).bind(ahead.to_string()).execute(&mut postgres).await.unwrap();

    // A new process, and then the same one after another had the lease, under which workers applied more.
    let running = rig.start();
    eventually("more events", async || rig.entries().await.len() > written + 100).await;
    sqlx::query(reserve).bind((ahead + 60_000).to_string()).execute(&mut postgres).await.unwrap();
    let px = Some(fred::types::Expiration::PX(300));
    let _: () = rig.client.set("firehose:ingest:lease", "other", px, None, false).await.unwrap();
    rig.reaches(3_000).await;
    running.stop().await;
    let ids: Vec<StreamId> = rig.entries().await.iter().map(|entry| entry.0.parse().unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    let floor = |ms: i64| StreamId { ms: u64::try_from(ms).unwrap() + 1, seq: 1 };
    assert_eq!(ids[written], floor(ahead));
    assert!(ids.contains(&floor(ahead + 60_000)));
    rig.holds_exactly(&frames).await;
}

/// The bound is somewhat ahead of what is written: it moves no ID while the clock is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_the_clock_has_passed_changes_no_id() {
    let (rig, _frames, mut postgres) = written().await;
    let now = jiff::Timestamp::now().as_millisecond();
    let reserve = "INSERT INTO penstock.meta VALUES ('reserved', $1)";
    sqlx::query(reserve).bind((now - 5_000).to_string()).execute(&mut postgres).await.unwrap();
    let _: u64 = rig.client.del("firehose:python_cursor").await.unwrap();
    let before = rig.entries().await.len();
    let running = rig.start();
    eventually("the events", async || rig.entries().await.len() > before + 100).await;
    running.stop().await;
    let first: StreamId = rig.entries().await[before].0.parse().unwrap();
    let after = u64::try_from(now).unwrap();
    assert!((after..after + 60_000).contains(&first.ms), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_without_a_database_tells_that_checkpoints_stand_still_until_they_do_not() {
    let mut rig = Rig::new(serve(paced(1_000)).await).await;
    rig.set("ingest.statusInterval", "50ms");
    let running = rig.start();
    let still = || running.count("penstock_ingest_checkpoints_still");
    let _: () = rig.client.set("firehose:pipeline", "{}", None, None, false).await.unwrap();
    eventually("the standstill", async || still() == 1).await;
    let _: () = rig.client.set("firehose:incarnation", "here", None, None, false).await.unwrap();
    eventually("the end", async || still() == 0).await;
    let _: u64 = rig.client.del("firehose:incarnation").await.unwrap();
    eventually("the standstill again", async || still() == 1).await;
    running.stop().await;
}
