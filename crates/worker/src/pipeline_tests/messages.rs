//! The message buffer: every queued message becomes one row, whatever happens on the way.

use std::collections::BTreeSet;

use fred::interfaces::{ClientLike, EventInterface, KeysInterface, ListInterface, PubsubInterface};
use penstock_core::redis;
use serde_json::{Value, json};
use sqlx::Row;

use super::bench::{Bench, Running, eventually};

const ENABLED: (&str, &str) = ("messageBuffer.enabled", "true");
pub(super) const SOON: [(&str, &str); 4] = [
    ENABLED,
    ("messageBuffer.batchDelay", "10ms"),
    ("messageBuffer.statsInterval", "50ms"),
    ("messageBuffer.deadAfter", "300ms"),
];

pub(super) fn message(number: usize) -> String {
    json!({
        "tracking_id": format!("id{number:06}"),
        "user_id": 1 + number,
        "channel_id": 7,
        "content": format!("message {number}"),
        "created_at": "2026-07-04T14:38:08.999Z",
    })
    .to_string()
}

impl Bench {
    /// Queues as the API does.
    pub(super) async fn queue(&self, messages: impl IntoIterator<Item = String>) {
        let messages: Vec<_> = messages.into_iter().collect();
        let ids: Vec<String> = messages
            .iter()
            .filter_map(|message| {
                Some(serde_json::from_str::<Value>(message).ok()?["tracking_id"].as_str()?.to_owned())
            })
            .collect();
        let () = self.client.lpush("pending_messages", messages).await.unwrap();
        if !ids.is_empty() {
            let () = self.client.lpush("queued_message_ids", ids).await.unwrap();
        }
    }

    fn start_writer(&self, name: &str) -> Running {
        self.start(name, &SOON)
    }

    async fn length(&self, key: &str) -> u64 {
        self.client.llen(key).await.unwrap()
    }

    async fn text(&self, key: &str) -> String {
        self.client.get::<Option<String>, _>(key).await.unwrap().unwrap_or_default()
    }

    pub(super) async fn persisted(&self) -> i64 {
        self.text("total_messages").await.parse().unwrap_or_default()
    }

    /// Checks that the rows are exactly those messages, and the total as well.
    pub(super) async fn assert_written(&self, numbers: std::ops::Range<usize>) {
        let rows = sqlx::query("SELECT user_id, content, ours.tracking_id, channel_id FROM messages JOIN penstock.message_keys AS ours ON message_id = id")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        let users: BTreeSet<i32> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(rows.len(), numbers.len(), "each message is one row");
        assert_eq!(users, numbers.clone().map(|number| 1 + number as i32).collect());
        for row in &rows {
            let number = row.get::<i32, _>(0) - 1;
            assert_eq!((row.get::<&str, _>(1), row.get::<i32, _>(3)), (&*format!("message {number}"), 7));
            assert_eq!(row.get::<&str, _>(2), format!("id{number:06}"));
        }
        assert_eq!(self.persisted().await, numbers.len() as i64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_messages_become_rows_and_all_is_told() {
    let bench = Bench::new().await;
    let settings = bench.settings("listener", &[]);
    let listener = redis::connect_subscriber(&settings).await.unwrap();
    let mut told = listener.message_rx();
    listener.subscribe("batch_notifications").await.unwrap();
    bench.queue((0..120).map(message)).await;
    let worker = bench.start_writer("w-0");
    eventually!(bench.persisted().await == 120);
    bench.assert_written(0..120).await;
    let created = bench.texts("SELECT DISTINCT created_at::text FROM messages").await;
    assert_eq!(created, ["2026-07-04 14:38:08.999"]);
    let order = bench.texts("SELECT tracking_id FROM penstock.message_keys ORDER BY message_id").await;
    assert!(order.is_sorted(), "what was queued first has the first id");

    let mut sizes = Vec::new();
    for batch in 1..=3 {
        let told: Value = serde_json::from_str(&told.recv().await.unwrap().value.as_string().unwrap()).unwrap();
        let size = told["ids"].as_array().unwrap().len();
        assert_eq!((&told["type"], &told["total_batches"]), (&json!("persisted"), &json!(batch)));
        assert_eq!(told["batch_size"], size);
        assert!(told["batch_id"].is_string() && told["timestamp"].is_string(), "{told}");
        sizes.push(size);
        if batch == 3 {
            assert_eq!(told["total_messages"], 120);
            assert_eq!(bench.text("last_batch_id").await, told["batch_id"]);
            assert_eq!(bench.text("last_batch_time").await, told["timestamp"]);
            assert_eq!(bench.text("last_persisted_ids").await, told["ids"].to_string());
        }
    }
    assert_eq!(sizes, [50, 50, 20], "a batch has at most 50");
    assert_eq!((bench.text("total_batches").await, bench.text("last_batch_size").await), ("3".into(), "20".into()));
    assert_eq!((bench.length("persisted_message_ids").await, bench.length("queued_message_ids").await), (120, 0));
    assert_eq!((bench.length("pending_messages").await, bench.length("pending_messages:taken:w-0").await), (0, 0));
    for key in ["avg_latency_ms", "p95_latency_ms", "p99_latency_ms"] {
        assert!(bench.text(key).await.parse::<f64>().unwrap() > 0.0, "{key}");
    }
    eventually!(bench.text("current_rps").await == "12.00", "120 in ten seconds");
    eventually!(bench.text("current_rps").await == "0.00", "nothing for ten seconds");
    assert_eq!(bench.text("worker_buffer_size").await, "0");
    assert_eq!(worker.metric("penstock_worker_messages_written_total"), 120.0);
    listener.quit().await.unwrap();
    worker.stop().await.unwrap();
    assert_eq!(bench.text("pending_messages:taken:w-0:alive").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_become_dead_letters_and_harm_no_other() {
    let bench = Bench::new().await;
    bench.execute("ALTER TABLE messages ADD CONSTRAINT no_poison CHECK (content <> 'poison')").await;
    let bad = [
        r#"{"tracking_id":"torn","user_id":1,"#.to_owned(),
        "\u{1}\u{0}".to_owned(),
        message(0).replace("\"user_id\":1", "\"user_id\":3000000000"),
        message(0).replace("message 0", "poison"),
        message(0).replace("message 0", " "),
    ];
    let nul = message(0).replace("message 0", r"mes\u0000sage 0");
    let queued =
        [message(1), bad[0].clone(), bad[1].clone(), nul, bad[2].clone(), message(2), bad[3].clone(), bad[4].clone()];
    bench.queue(queued).await;
    bench.queue((3..60).map(message)).await;
    let worker = bench.start_writer("w-0");
    eventually!(bench.persisted().await == 60 && bench.dead_letters().await.len() == 5);
    bench.assert_written(0..60).await;
    let letters = bench.dead_letters().await;
    let said = |data: &str| {
        let letter = letters.iter().find(|letter| letter["data"] == data).unwrap();
        assert_eq!((&*letter["type"], &*letter["consumer"], &*letter["origId"]), ("message", "w-0", ""));
        letter["error"].clone()
    };
    assert!(said(&bad[0]).starts_with("invalid message json: "), "{}", said(&bad[0]));
    assert!(said(&bad[2]).contains("3000000000"), "{}", said(&bad[2]));
    assert!(said(&bad[3]).contains("23514"), "{}", said(&bad[3]));
    assert_eq!(said(&bad[4]), "content is blank");
    assert_eq!(bench.texts("SELECT kind FROM penstock.dead_letters").await, ["message"; 5]);
    assert_eq!(bench.length("pending_messages:taken:w-0").await, 0);
    assert_eq!(worker.metric("penstock_dead_letters_total{"), 5.0);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_worker_had_taken_is_written_by_another_and_a_live_ones_is_left_alone() {
    let bench = Bench::new().await;
    let () = bench.client.lpush("pending_messages:taken:dead", (0..30).map(message).collect::<Vec<_>>()).await.unwrap();
    let () =
        bench.client.lpush("pending_messages:taken:live", (30..60).map(message).collect::<Vec<_>>()).await.unwrap();
    bench.command("ZADD pending_messages:workers 5 dead 6 gone 7 live").await;
    bench.command("SET pending_messages:taken:live:alive 1").await;
    let worker = bench.start_writer("w-0");
    eventually!(bench.persisted().await == 30);
    eventually!(
        bench.command("ZRANGE pending_messages:workers 0 -1").await.array_len() == Some(2),
        "dead and gone are forgotten"
    );
    assert_eq!(bench.length("pending_messages:taken:live").await, 30);
    bench.assert_written(0..30).await;
    bench.command("DEL pending_messages:taken:live:alive").await;
    eventually!(bench.persisted().await == 60);
    bench.assert_written(0..60).await;
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_commit_and_removal_writes_and_counts_nothing_twice() {
    let bench = Bench::new().await;
    bench.queue((0..50).map(message)).await;
    let worker = bench.start_writer("w-0");
    eventually!(bench.persisted().await == 50);
    worker.crash().await;
    // As if the crash had come before the removal, of a part of the batch in another's name.
    bench.command("SET total_messages 0").await;
    let again: Vec<String> = (0..50).map(message).collect();
    let () = bench.client.lpush("pending_messages:taken:w-0", again[..25].to_vec()).await.unwrap();
    let () = bench.client.lpush("pending_messages:taken:dead", again[25..].to_vec()).await.unwrap();
    bench.command("ZADD pending_messages:workers 5 dead").await;
    let worker = bench.start_writer("w-0");
    eventually!(bench.persisted().await == 50);
    bench.assert_written(0..50).await;
    let numbers = bench.texts("SELECT max(id)::text FROM messages").await;
    assert_eq!(numbers, ["50"], "nor is a number used up");
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_crash_and_lose_connections_write_each_message_once() {
    let bench = Bench::new().await;
    let mut next = 0;
    let mut workers = Vec::new();
    for round in 0..12 {
        workers.push(bench.start_writer(&format!("w-{}", round % 4)));
        for _ in 0..5 {
            bench.queue((next..next + 37).map(message)).await;
            next += 37;
            let before = bench.persisted().await;
            if round % 2 == 0 {
                eventually!(bench.persisted().await > before || bench.length("pending_messages").await == 0);
            }
            if round % 3 == 0 {
                bench.command("CLIENT KILL TYPE normal SKIPME yes").await;
            }
        }
        if workers.len() == 3 {
            workers.remove(round % 3).crash().await;
        }
    }
    eventually!(bench.persisted().await == next as i64);
    bench.assert_written(0..next).await;
    assert!(bench.dead_letters().await.is_empty());
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_writes_what_it_has_gathered() {
    let bench = Bench::new().await;
    let worker = bench.start("w-0", &[ENABLED, ("messageBuffer.batchDelay", "1m")]);
    bench.queue((0..3).map(message)).await;
    eventually!(bench.length("pending_messages:taken:w-0").await == 3);
    assert_eq!(bench.rows("messages").await, 0);
    worker.stop().await.unwrap();
    bench.assert_written(0..3).await;
    assert_eq!(bench.length("pending_messages:taken:w-0").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_workers_hold_is_told_with_each_change() {
    let bench = Bench::new().await;
    // The interval of the statistics tells nothing here.
    let slow = [ENABLED, ("messageBuffer.batchDelay", "1m"), ("messageBuffer.statsInterval", "1m")];
    let first = bench.start("w-0", &slow);
    eventually!(bench.text("total_messages").await == "0");
    bench.queue((0..7).map(message)).await;
    eventually!(bench.text("worker_buffer_size").await == "7");
    let () = bench.client.lpush("pending_messages:taken:dead", (7..10).map(message).collect::<Vec<_>>()).await.unwrap();
    bench.command("ZADD pending_messages:workers 5 dead").await;
    bench.command("SET pending_messages:taken:dead:alive 1").await;
    let second = bench.start("w-1", &slow);
    eventually!(bench.text("worker_buffer_size").await == "10", "of all of them");
    bench.queue((10..12).map(message).chain(["torn".to_owned()])).await;
    eventually!(bench.text("worker_buffer_size").await == "13" && bench.length("pending_messages").await == 0);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    eventually!(bench.text("worker_buffer_size").await == "3", "those of a worker that lives");
    assert_eq!((bench.persisted().await, bench.dead_letters().await.len()), (9, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_waits_and_is_left_to_others() {
    let bench = Bench::new().await;
    let stuck = bench.start_writer("w-0");
    eventually!(bench.text("current_rps").await == "0.00");
    bench.execute("ALTER TABLE messages RENAME TO elsewhere").await;
    bench.queue((0..20).map(message)).await;
    eventually!(stuck.metric("penstock_worker_retries_total{") as u64 > 3);
    assert!(!stuck.health.is_ready());
    stuck.stop().await.unwrap();
    assert_eq!(bench.persisted().await, 0);
    assert_eq!(bench.length("pending_messages:taken:w-0").await, 20);
    bench.execute("ALTER TABLE elsewhere RENAME TO messages").await;
    let other = bench.start_writer("w-1");
    eventually!(bench.persisted().await == 20);
    bench.assert_written(0..20).await;
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_buffer_is_not_enabled_messages_are_left_alone() {
    let bench = Bench::new().await;
    bench.queue([message(0)]).await;
    bench.add_likes(0..5, 5).await;
    let worker = bench.start("w-0", &[]);
    eventually!(bench.total().await == 5);
    worker.stop().await.unwrap();
    assert_eq!((bench.length("pending_messages").await, bench.text("total_messages").await), (1, String::new()));
}
