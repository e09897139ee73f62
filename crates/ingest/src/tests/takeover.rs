//! A stream that another program wrote, before us or beside us.

mod beside;

use penstock_local::testing::{TestPostgres, fresh_database};

use super::*;

const REFUSED: &str = "penstock_ingest_publishes_refused_total{reason=\"foreign\"}";

const ROW: &str = "SELECT cursor FROM firehose_cursor WHERE service = 'firehose'";

impl Rig {
    /// Adds an entry with these fields after its type, as a backfill or a replay does.
    async fn add_fields(&self, fields: &[(&str, &str)]) {
        let mut all = vec![("type", "account"), ("data", r#"{"did":"did:plc:filled","active":true}"#)];
        all.extend(fields);
        let _: String = self.client.xadd("firehose:events", false, None, "*", all).await.unwrap();
    }

    /// Lets the group of the workers read and acknowledge all there is.
    async fn acknowledge_all(&self) {
        self.group().await;
        self.acknowledge_new().await;
    }

    async fn group(&self) {
        let _: () = self.client.xgroup_create("firehose:events", "firehose-processors", "0", true).await.unwrap();
    }

    /// Lets that group, which is there, read and acknowledge what it has not read.
    async fn acknowledge_new(&self) {
        type Reply = Vec<(String, Vec<(String, Vec<(String, Bytes)>)>)>;
        let group = "firehose-processors";
        let read: Reply =
            self.client.xreadgroup(group, "python-1-a", None, None, false, "firehose:events", ">").await.unwrap();
        let ids: Vec<String> = read.into_iter().flat_map(|(_, entries)| entries).map(|(id, _)| id).collect();
        let _: u64 = self.client.xack("firehose:events", group, ids).await.unwrap();
    }

    async fn length(&self) -> u64 {
        self.client.xlen("firehose:events").await.unwrap()
    }

    async fn set_cursor(&self, cursor: u64) {
        let _: () = self.client.set("firehose:python_cursor", cursor, None, None, false).await.unwrap();
    }

    /// The numbers of all entries that carry one and are nobody's replay.
    async fn numbers(&self) -> Vec<u64> {
        let found: Vec<(String, HashMap<String, String>)> =
            self.client.xrange("firehose:events", "-", "+", None).await.unwrap();
        let own = found.iter().filter(|(_, fields)| !fields.contains_key("origId"));
        own.filter_map(|(_, fields)| fields["seq"].parse().ok()).collect()
    }
}

/// Makes the table of the AppView's own ingestion, with its row where it has one.
async fn appview(rig: &mut Rig, url: &str, cursor: Option<&str>) -> PgConnection {
    let table = "CREATE TABLE firehose_cursor (id serial PRIMARY KEY, service varchar(255) NOT NULL UNIQUE, cursor text, \
                 last_event_time timestamp, updated_at timestamp NOT NULL DEFAULT now())";
    let mut postgres = rig.set_database(url, table).await;
    if let Some(cursor) = cursor {
        let insert = "INSERT INTO firehose_cursor (service, cursor) VALUES ('firehose', $1)";
        sqlx::query(insert).bind(cursor).execute(&mut postgres).await.unwrap();
    }
    postgres
}

fn seqs(frames: &[Bytes]) -> Vec<u64> {
    events(frames).iter().map(|event| event.seq).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_entries_told_outlives_them_although_the_relay_comes_late() {
    // The consumer before us stopped between its cursor and its entry, or was killed long after its cursor.
    for cursor in [401, 201] {
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = reserved.local_addr().unwrap();
        drop(reserved);
        let settings = penstock_replay::Settings { address, ..replay(1_000) };
        let frames = frames(&settings);
        let rig = Rig::new(address).await;
        rig.add(&frames[..400]).await;
        rig.acknowledge_all().await;
        rig.set_cursor(cursor).await;
        let running = rig.start();
        eventually("the trim", async || rig.length().await == 0).await;
        running.crash().await;
        let running = rig.start();
        eventually("another try", async || running.count("penstock_ingest_reconnects_total{reason=\"connect\"}") >= 2)
            .await;
        let source: String = rig.client.get("firehose:ingest:source").await.unwrap();
        assert_eq!(serde_json::from_str::<Source>(&source).unwrap().host, address.to_string());
        let _relay = serve(settings).await;
        rig.reaches(1_000).await;
        running.stop().await;
        rig.holds_exactly(&frames[400..]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_that_is_taken_over_is_trimmed_before_it_is_read_on() {
    let (mut rig, frames) = Rig::serving(replay(1_000)).await;
    rig.set("redis.maxStreamLen", "300");
    rig.add(&frames[..400]).await;
    rig.acknowledge_all().await;
    rig.set_cursor(450).await;
    let running = rig.start();
    // Nobody reads on: the first entries after the takeover fill it up again.
    eventually("the first of what follows", async || rig.numbers().await.first() == seqs(&frames[400..]).first()).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_tail_without_numbers_hides_no_number() {
    let (rig, frames) = Rig::serving(replay(1_000)).await;
    rig.add(&frames[..400]).await;
    for _ in 0..2_500 {
        rig.add_fields(&[("seq", "")]).await;
    }
    // A replayed dead letter carries an old number.
    rig.add_fields(&[("seq", "3"), ("origId", "5-1")]).await;
    rig.set_cursor(450).await;
    let running = rig.start();
    rig.reaches(1_000).await;
    running.stop().await;
    assert_eq!(rig.numbers().await, seqs(&frames));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cursor_the_newest_number_in_the_stream_is_gone_by() {
    let whole = frames(&replay(600));
    let (address, asked) = scripted(vec![(whole[399..].to_vec(), false)]).await;
    let mut rig = Rig::new(address).await;
    rig.set("relay.start", "live");
    // The AppView's ingestion: a number with commits only.
    rig.add(&whole[..400]).await;
    rig.add_fields(&[("seq", "")]).await;
    let running = rig.start();
    rig.reaches(600).await;
    running.stop().await;
    assert_eq!(*asked.lock().unwrap(), ["cursor=399"]);
    assert_eq!(rig.numbers().await, seqs(&whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_cursor_and_entries_the_row_of_the_ingestion_before_is_gone_by() {
    let whole = frames(&replay(600));
    // The row is written before the entry: what it names may not be there.
    let (address, asked) = scripted(vec![(whole[398..].to_vec(), false)]).await;
    let mut rig = Rig::new(address).await;
    rig.set("relay.start", "live");
    let _postgres = appview(&mut rig, &fresh_database().await.unwrap(), Some("400")).await;
    let running = rig.start();
    rig.reaches(600).await;
    running.stop().await;
    assert_eq!(*asked.lock().unwrap(), ["cursor=398"]);
    rig.holds_exactly(&whole[399..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_trace_of_an_ingestion_the_setting_decides() {
    let (address, asked) = scripted(vec![(frames(&replay(10)), false)]).await;
    let mut rig = Rig::new(address).await;
    rig.set("relay.start", "live");
    let _postgres = appview(&mut rig, &fresh_database().await.unwrap(), None).await;
    let running = rig.start();
    rig.reaches(10).await;
    running.stop().await;
    assert_eq!(*asked.lock().unwrap(), [""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_the_ingestion_before_follows_the_stream_and_never_leads() {
    let paced = penstock_replay::Settings { rate: Rate::PerSecond(1_000.try_into().unwrap()), ..replay(50_000) };
    let mut rig = Rig::new(serve(paced).await).await;
    rig.set("ingest.appviewCursor", "true");
    let mut postgres = appview(&mut rig, &fresh_database().await.unwrap(), None).await;
    let running = rig.start();
    let mut seen = Vec::new();
    eventually("the row moves", async || {
        let row: Option<String> = sqlx::query_scalar(ROW).fetch_optional(&mut postgres).await.unwrap();
        let row = row.and_then(|row| row.parse::<u64>().ok()).unwrap_or_default();
        assert!(row <= rig.cursor().await.unwrap_or_default(), "the row is ahead of the stream");
        if row > 0 && seen.last() != Some(&row) {
            seen.push(row);
        }
        seen.len() >= 3
    })
    .await;
    running.stop().await;
    let row: String = sqlx::query_scalar(ROW).fetch_one(&mut postgres).await.unwrap();
    assert_eq!(row.parse().ok(), rig.cursor().await, "kept once more at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_frozen_does_not_set_the_row_back() {
    let (address, _) = scripted(vec![(frames(&replay(300)).split_off(3), false)]).await;
    let mut rig = Rig::new(address).await;
    rig.set("ingest.appviewCursor", "true");
    let url = fresh_database().await.unwrap();
    let mut postgres = appview(&mut rig, &url, Some("5")).await;
    let mut next = PgConnection::connect(&url).await.unwrap();
    let mut ahead = next.begin().await.unwrap();
    let update = "UPDATE firehose_cursor SET cursor = '999', updated_at = timezone('UTC', now())";
    sqlx::query(update).execute(&mut *ahead).await.unwrap();
    let running = rig.start();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut are_waiting = async |some: bool| {
        eventually(if some { "the write" } else { "its end" }, async || {
            let count: i64 = sqlx::query_scalar(waiting).fetch_one(&mut postgres).await.unwrap();
            (count > 0) == some
        })
        .await;
    };
    are_waiting(true).await;
    // What it sent before it was gone is carried out once the next process has written.
    running.crash().await;
    ahead.commit().await.unwrap();
    are_waiting(false).await;
    let row: String = sqlx::query_scalar(ROW).fetch_one(&mut postgres).await.unwrap();
    assert_eq!(row, "999");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_stops_nothing() {
    let (mut rig, frames) =
        Rig::serving(penstock_replay::Settings { rate: Rate::PerSecond(1_000.try_into().unwrap()), ..replay(4_000) })
            .await;
    rig.set("ingest.appviewCursor", "true");
    let mut postgres = TestPostgres::start().await.unwrap();
    let connection = appview(&mut rig, &postgres.fresh_database().await.unwrap(), None).await;
    let running = rig.start();
    eventually("events", async || running.progress.published() > 300).await;
    drop(connection);
    postgres.stop().await.unwrap();
    rig.reaches(4_000).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_producer_is_noticed_at_once_and_taken_over_from_when_it_ends() {
    let paced = penstock_replay::Settings { rate: Rate::PerSecond(500.try_into().unwrap()), ..replay(3_000) };
    let frames = frames(&paced);
    let all = events(&frames);
    let rig = Rig::new(serve(paced).await).await;
    let running = rig.start();
    eventually("events", async || running.progress.published() > 300).await;
    // It goes on from our cursor, which it writes once in five seconds: here never.
    let from = usize::try_from(rig.cursor().await.unwrap()).unwrap();
    let until = Instant::now() + Duration::from_millis(1_500);
    let mut at = from;
    while Instant::now() < until || running.count(REFUSED) == 0 {
        rig.add(&frames[at..=at]).await;
        at += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(!running.health.is_ready(), "it is told");
    rig.reaches(3_000).await;
    eventually("readiness", async || running.health.is_ready()).await;
    running.stop().await;
    let mut times: std::collections::BTreeMap<u64, usize> = all.iter().map(|event| (event.seq, 0)).collect();
    for seq in rig.numbers().await {
        *times.get_mut(&seq).unwrap() += 1;
    }
    assert!(times.values().all(|times| *times > 0), "an event is missing");
    let doubled = times.values().filter(|times| **times > 1).count();
    assert!(doubled < 100, "{doubled} of {} events are doubled", at - from);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_without_a_number_and_replays_are_let_pass() {
    let (rig, frames) =
        Rig::serving(penstock_replay::Settings { rate: Rate::PerSecond(1_000.try_into().unwrap()), ..replay(2_000) })
            .await;
    let running = rig.start();
    while rig.cursor().await != Some(2_000) {
        rig.add_fields(&[("seq", "")]).await;
        rig.add_fields(&[("seq", "7"), ("origId", "5-1")]).await;
    }
    for reason in ["foreign", "behind", "cursor"] {
        let refused = format!("penstock_ingest_publishes_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(running.count(&refused), 0, "{reason}");
    }
    running.stop().await;
    assert_eq!(rig.numbers().await, seqs(&frames));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_wrote_while_we_were_away_is_taken_over_from_whatever_the_cursor_says() {
    let settings = replay(1_000);
    let frames = frames(&settings);
    let short = replay(300);
    let rig = Rig::new(serve(short).await).await;
    let running = rig.start();
    rig.reaches(300).await;
    running.stop().await;
    // The AppView's ingestion for a while: it leaves our cursor as it is.
    rig.add(&frames[300..500]).await;
    let again = rig.moved_to(serve(settings).await).await;
    let running = again.start();
    again.reaches(1_000).await;
    assert_eq!(running.count(REFUSED), 0, "it had ended before");
    running.stop().await;
    again.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_version_that_noted_nothing_a_cursor_ahead_of_its_entries_gives_way_to_them() {
    let settings = replay(1_000);
    let frames = frames(&settings);
    let address = serve(settings).await;
    let rig = Rig::new(address).await;
    // That version had read this host; then the Python consumer stopped between its cursor and its entry.
    rig.add(&frames[..400]).await;
    rig.set_cursor(401).await;
    rig.set_source(address).await;
    let running = rig.start();
    rig.reaches(1_000).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_of_repeats_does_not_hide_the_end() {
    let (rig, frames) = Rig::serving(replay(4_000)).await;
    // The Python consumer was killed twice in a row and began at the same cursor both times.
    rig.add(&frames[..3_100]).await;
    rig.add(&frames[1_000..2_500]).await;
    rig.add(&frames[1_000..2_500]).await;
    rig.set_cursor(1_000).await;
    let before = rig.length().await;
    let running = rig.start();
    rig.reaches(4_000).await;
    running.stop().await;
    let written = rig.numbers().await.split_off(usize::try_from(before).unwrap());
    assert_eq!(written.first(), seqs(&frames[3_100..]).first());
    assert_eq!(written.len(), seqs(&frames[3_100..]).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_entries_are_looked_through_in_steps() {
    let (rig, frames) = Rig::serving(replay(1_000)).await;
    rig.add(&frames[..400]).await;
    let large = format!(r#"{{"did":"did:plc:large","x":"{}"}}"#, "x".repeat(1_000_000));
    for _ in 0..25 {
        let fields = vec![("type", "account"), ("data", &large), ("seq", "")];
        let _: String = rig.client.xadd("firehose:events", false, None, "*", fields).await.unwrap();
    }
    let newest: Vec<(String, HashMap<String, String>)> =
        rig.client.xrevrange("firehose:events", "+", "-", Some(26)).await.unwrap();
    let (last, numbered) = (newest[0].0.as_str(), newest[25].0.as_str());
    let look: Vec<String> =
        rig.client.eval(crate::scripts::NUMBERS, "firehose:events", vec!["+", "1000", "4000000"]).await.unwrap();
    assert!(!look[0].is_empty(), "not all at once");
    let names = vec!["cursor", "source", "state", "firehose:events", "incarnation"];
    let look: Vec<String> = rig.client.eval(crate::scripts::POSITION, names, vec!["10000", numbered]).await.unwrap();
    assert!(look[6] != last, "not all at once");
    rig.set_cursor(450).await;
    let running = rig.start();
    rig.reaches(1_000).await;
    running.stop().await;
    assert_eq!(rig.numbers().await, seqs(&frames));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_redis_that_another_tenant_filled_ingest_starts_and_trims() {
    let (rig, frames) = Rig::serving(replay(1_000)).await;
    rig.add(&frames[..400]).await;
    rig.acknowledge_all().await;
    rig.set_cursor(450).await;
    rig.fill_up().await;
    let running = rig.start();
    eventually("the trim", async || rig.length().await == 0).await;
    assert_eq!(rig.cursor().await, seqs(&frames[..400]).last().copied(), "what the entries told is kept");
    assert_eq!(running.count("penstock_redis_memory_limit_bytes "), 30 << 20);
    assert!(running.count("penstock_redis_memory_bytes ") > 40_000_000);
    let _: u64 = rig.client.del("tenant").await.unwrap();
    rig.reaches(1_000).await;
    running.stop().await;
    rig.holds_exactly(&frames[400..]).await;
}
