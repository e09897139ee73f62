//! The message buffer: what is taken, what is refused, and the statistics over a WebSocket.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface, ListInterface, PubsubInterface};
use futures_util::{SinkExt, StreamExt};
use penstock_local::testing::{TestRedis, fresh_database};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::client::{Answer, administrate, ask, get, tell};
use super::{Dashboard, until};
use crate::serve::Limits;

const ENABLED: (&str, &str) = ("messageBuffer.enabled", "true");
const OFTEN: (&str, &str) = ("messageBuffer.statsInterval", "50ms");

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One with a Redis, and a database that has the table.
async fn whole() -> (Dashboard, TestRedis, Client, PgPool) {
    let database = fresh_database().await.unwrap();
    let pool = PgPool::connect(&database).await.unwrap();
    sqlx::raw_sql(
        "CREATE TABLE messages (id bigserial PRIMARY KEY, user_id int NOT NULL, channel_id int NOT NULL,
           content text NOT NULL, created_at timestamp NOT NULL, inserted_at timestamp NOT NULL DEFAULT now());
         CREATE SCHEMA penstock;
         CREATE TABLE penstock.message_keys (dedupe_key text PRIMARY KEY, message_id bigint NOT NULL, tracking_id text)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let (dashboard, redis, client) = Dashboard::with_redis(&[ENABLED, OFTEN, ("postgres.url", &database)]).await;
    (dashboard, redis, client, pool)
}

async fn post(dashboard: &Dashboard, body: &str) -> Answer {
    tell(dashboard.address, "POST", "/messages", body).await
}

async fn open(dashboard: &Dashboard) -> Socket {
    connect_async(format!("ws://{}/ws/stats", dashboard.address)).await.unwrap().0
}

/// The next text frame; `None` at the end.
async fn frame(socket: &mut Socket) -> Option<Value> {
    loop {
        match timeout(Duration::from_secs(30), socket.next()).await.expect("a frame or the end in time")? {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn a_message_that_is_taken_lies_in_redis_as_workers_read_it() {
    let (dashboard, _redis, client, _pool) = whole().await;
    let taken = post(&dashboard, r#"{"user_id":7,"channel_id":9,"content":" hé\"llo \n"}"#).await;
    assert_eq!((taken.status, taken.header("content-type")), (201, "application/json"));
    taken.fits("POST", "/messages");
    let told = taken.json();
    let id = told["message_id"].as_str().unwrap();
    assert!(id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{told}");
    let lies: String = client.lindex(dashboard.keys().pending_messages(), 0).await.unwrap();
    assert_eq!(
        lies,
        format!(
            r#"{{"tracking_id":"{id}","user_id":7,"channel_id":9,"content":"hé\"llo","created_at":{}}}"#,
            told["queued_at"]
        )
    );
    let queued: Vec<String> = client.lrange(dashboard.keys().queued_message_ids(), 0, -1).await.unwrap();
    assert_eq!((queued, &told["status"]), (vec![id.to_owned()], &json!("queued")));

    for _ in 0..119 {
        assert_eq!(post(&dashboard, r#"{"user_id":7,"channel_id":9,"content":"x"}"#).await.status, 201);
    }
    let status = get(dashboard.address, "/queue/status").await;
    status.fits("GET", "/queue/status");
    let status = status.json();
    let figures =
        ["queue_length", "batch_threshold", "batch_progress", "batches_ready"].map(|name| status[name].clone());
    assert_eq!(figures, [120, 50, 20, 2]);
    let none = json!({"batch_id": null, "size": 0, "completed_at": null});
    assert_eq!((status["queued_message_ids"].as_array().unwrap().len(), &status["last_batch"]), (100, &none));
    let health = get(dashboard.address, "/health").await.json();
    let figures =
        ["queue_length", "batch_threshold", "batch_progress", "batches_pending"].map(|name| health[name].clone());
    assert_eq!(figures, [120, 50, 20, 2]);
}

#[tokio::test]
async fn what_is_wrong_is_told_as_pydantic_tells_it() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[ENABLED]).await;
    let refused = post(&dashboard, r#"{"user_id":0,"channel_id":2147483648,"content":" \t"}"#).await;
    assert_eq!((refused.status, refused.header("content-type")), (422, "application/json"));
    refused.fits("POST", "/messages");
    assert_eq!(
        refused.json(),
        json!({"detail": [
            {"loc": ["body", "user_id"], "msg": "Input should be greater than 0", "type": "greater_than"},
            {"loc": ["body", "channel_id"], "msg": "Input should be less than or equal to 2147483647", "type": "less_than_equal"},
            {"loc": ["body", "content"], "msg": "String should have at least 1 character", "type": "string_too_short"},
        ]})
    );
    let shape = json!({"detail": [{
        "loc": ["body"],
        "msg": "Input should be a valid dictionary or object to extract fields from",
        "type": "model_attributes_type",
    }]});
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        for (path, body) in
            [("/messages", r#"{"user_id":1,"channel_id":1,"content":"x"}"#), ("/simulate", r#"{"count":1}"#)]
        {
            let admin = format!("Bearer {}", super::ADMIN);
            let headers = [("authorization", admin.as_str()), ("content-type", kind)];
            let refused = super::client::send_as(dashboard.address, "POST", path, &headers, body).await;
            assert_eq!((refused.status, refused.json()), (422, shape.clone()), "{path} {kind}");
        }
    }
    for body in ["{", "[]", "7", r#"{"user_id":1,"channel_id":1,"content":"a\u0000b"}"#] {
        assert_eq!(post(&dashboard, body).await.status, 422, "{body}");
    }
    let huge = format!(r#"{{"user_id":1,"channel_id":1,"content":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(post(&dashboard, &huge).await.problem(), 413);
    let longest = format!(r#"{{"user_id":1,"channel_id":1,"content":"{}"}}"#, r"\ud83d\ude00".repeat(2000));
    assert_eq!(post(&dashboard, &longest).await.status, 201, "characters count, not bytes");
    assert_eq!(client.llen::<u64, _>(dashboard.keys().pending_messages()).await.unwrap(), 1);
    for query in ["limit=0", "limit=501", "limit=x"] {
        let refused = get(dashboard.address, &format!("/messages?{query}")).await;
        assert_eq!((refused.status, &refused.json()["detail"][0]["loc"]), (422, &json!(["query", "limit"])));
    }
    assert_eq!(get(dashboard.address, "/messages").await.problem(), 503, "no database is set");
}

#[tokio::test]
async fn written_messages_are_listed_the_newest_first() {
    let (dashboard, _redis, _client, pool) = whole().await;
    let list = async |query: &str| {
        let list = get(dashboard.address, &format!("/messages{query}")).await;
        list.fits("GET", "/messages");
        list.json().as_array().unwrap().clone()
    };
    assert_eq!(list("").await, [json!(null); 0]);
    sqlx::raw_sql(
        "INSERT INTO messages (user_id, channel_id, content, created_at, inserted_at)
         SELECT n, 2, 'c' || n, '2026-07-04 14:38:08.999', '2026-07-04 14:38:09' FROM generate_series(1, 60) AS n",
    )
    .execute(&pool)
    .await
    .unwrap();
    let times = ("2026-07-04T14:38:08.999Z", "2026-07-04T14:38:09.000Z");
    assert_eq!(
        list("?limit=1").await,
        [
            json!({"id": 60, "user_id": 60, "channel_id": 2, "content": "c60", "created_at": times.0, "inserted_at": times.1})
        ]
    );
    assert_eq!((list("").await.len(), list("?limit=500").await.len()), (50, 60));
}

#[tokio::test]
async fn an_administrator_simulates_and_resets_and_others_do_not() {
    let (dashboard, _redis, client, pool) = whole().await;
    for (method, path) in [("POST", "/simulate"), ("DELETE", "/reset")] {
        assert_eq!(ask(dashboard.address, method, path, &[]).await.problem(), 401);
    }
    let simulated = administrate(dashboard.address, "POST", "/simulate").await;
    simulated.fits("POST", "/simulate");
    let told = simulated.json();
    assert_eq!((simulated.status, &told["messages_count"], &told["current_queue"]), (202, &json!(500), &json!(500)));
    assert_eq!(told["tracking_ids"].as_array().unwrap().len(), 500);
    assert_eq!((&told["expected_complete_batches"], &told["expected_remaining_queued"]), (&json!(10), &json!(0)));
    let lies: String = client.lindex(dashboard.keys().pending_messages(), -1).await.unwrap();
    let lies: Value = serde_json::from_str(&lies).unwrap();
    assert_eq!(lies["tracking_id"], told["tracking_ids"][0], "the first was queued first");

    let keys = dashboard.keys();
    sqlx::raw_sql(
        "INSERT INTO messages (user_id, channel_id, content, created_at)
           SELECT n, 1, CASE WHEN n <= 3 THEN 'ours' ELSE 'theirs' END, now() FROM generate_series(1, 5) AS n;
         INSERT INTO penstock.message_keys SELECT 'key' || n, n, NULL FROM generate_series(1, 3) AS n;
         DELETE FROM messages WHERE id = 2",
    )
    .execute(&pool)
    .await
    .unwrap();
    let () = client.lpush(keys.messages_taken("w-0"), vec!["{}", "{}"]).await.unwrap();
    let () = client.set(keys.total_messages(), 77, None, None, false).await.unwrap();
    let () = client.set("other", 1, None, None, false).await.unwrap();
    let command = fred::types::CustomCommand::new_static("ZADD", None, false);
    let _: fred::types::Value =
        client.custom(command, vec![keys.messages_workers(), "5".to_owned(), "w-0".to_owned()]).await.unwrap();
    let reset = administrate(dashboard.address, "DELETE", "/reset").await;
    reset.fits("DELETE", "/reset");
    assert_eq!(reset.json(), json!({"status": "reset_complete", "deleted_messages": 2, "cleared_queue": 502}));
    for key in [keys.pending_messages(), keys.messages_taken("w-0"), keys.queued_message_ids()] {
        assert_eq!(client.exists::<u64, _>(key).await.unwrap(), 0);
    }
    assert_eq!(client.get::<String, _>(keys.total_messages()).await.unwrap(), "0");
    assert_eq!(client.get::<String, _>("other").await.unwrap(), "1");
    let left = get(dashboard.address, "/messages").await.json();
    let left: Vec<_> = left.as_array().unwrap().iter().map(|row| (&row["id"], &row["content"])).collect();
    assert_eq!(left, [(&json!(5), &json!("theirs")), (&json!(4), &json!("theirs"))], "what others wrote is left alone");
    let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM penstock.message_keys").fetch_one(&pool).await.unwrap();
    assert_eq!(keys, 0);
}

#[tokio::test]
async fn where_it_is_set_so_allowed_pages_simulate_and_reset_without_a_token_and_no_others() {
    let database = fresh_database().await.unwrap();
    sqlx::raw_sql(
        "CREATE SCHEMA penstock; CREATE TABLE penstock.message_keys (message_id bigint); CREATE TABLE public.messages (id bigint)",
    )
    .execute(&PgPool::connect(&database).await.unwrap())
    .await
    .unwrap();
    let open = [
        ENABLED,
        ("messageBuffer.openAdmin", "true"),
        ("dashboard.adminToken", "open sesame"),
        ("dashboard.extraAddresses", "0.0.0.0:0"),
        ("postgres.url", &database),
    ];
    let (dashboard, _redis, client) = Dashboard::with_redis(&open).await;
    let send = async |method, path, headers: &[(&str, &str)], body| {
        super::client::send_as(
            dashboard.address,
            method,
            path,
            &[headers, &[("content-type", "application/json")]].concat(),
            body,
        )
        .await
    };
    let page = [("origin", "http://127.0.0.1:3000"), ("sec-fetch-site", "cross-site")];
    let simulated = send("POST", "/simulate", &page, r#"{"count":120}"#).await;
    assert_eq!((simulated.status, simulated.header("access-control-allow-origin")), (202, "http://127.0.0.1:3000"));
    simulated.fits("POST", "/simulate");
    let told = simulated.json();
    let figures = [
        "current_queue",
        "expected_total",
        "expected_complete_batches",
        "expected_remaining_queued",
        "batch_threshold",
    ];
    assert_eq!(figures.map(|name| told[name].clone()), [120, 120, 2, 20, 50]);
    let asked = [("origin", "http://localhost:3000"), ("access-control-request-method", "DELETE")];
    let preflight = ask(dashboard.address, "OPTIONS", "/reset", &asked).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, "DELETE"));
    for (method, path) in [("POST", "/simulate"), ("DELETE", "/reset")] {
        assert_eq!(send(method, path, &[("origin", "http://evil.test")], "").await.problem(), 403);
    }
    assert_eq!(client.llen::<u64, _>(dashboard.keys().pending_messages()).await.unwrap(), 120);
    assert_eq!(ask(dashboard.address, "DELETE", "/reset", &[]).await.json()["cleared_queue"], 120, "a program");
    let other = ask(dashboard.address, "POST", "/api/metrics/refresh", &[]).await;
    assert_eq!(other.problem(), 401, "nothing else is open");
}

#[tokio::test]
async fn what_workers_hold_counts_as_queued_until_it_is_written() {
    let (dashboard, _redis, client, _pool) = whole().await;
    let mut socket = open(&dashboard).await;
    let keys = dashboard.keys();
    let mut depth = async |expected: u64| {
        let told = async { while frame(&mut socket).await.unwrap()["queue_depth"] != expected {} };
        timeout(Duration::from_secs(10), told).await.expect("the depth in time");
    };
    let () = client.lpush(keys.pending_messages(), vec!["{}"; 9]).await.unwrap();
    depth(9).await;
    // A worker of the system before says how many it took.
    let () = client.set(keys.worker_buffer_size(), 40, None, None, false).await.unwrap();
    depth(49).await;
    // Of ours each has a list, whoever of them said something last.
    for (worker, took) in [("w-0", 30), ("w-1", 25)] {
        let () = client.lpush(keys.messages_taken(worker), vec!["{}"; took]).await.unwrap();
        let command = fred::types::CustomCommand::new_static("ZADD", None, false);
        let _: fred::types::Value =
            client.custom(command, vec![keys.messages_workers(), "5".to_owned(), worker.to_owned()]).await.unwrap();
    }
    depth(64).await;
    let told = frame(&mut socket).await.unwrap();
    let figures = ["queue_length", "batches_ready", "batch_progress"].map(|name| told[name].clone());
    assert_eq!(figures, [9, 1, 14]);
}

#[tokio::test]
async fn a_full_queue_takes_no_more() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[ENABLED, ("messageBuffer.maxQueue", "2")]).await;
    let body = r#"{"user_id":7,"channel_id":9,"content":"x"}"#;
    assert_eq!((post(&dashboard, body).await.status, post(&dashboard, body).await.status), (201, 201));
    let full = post(&dashboard, body).await;
    assert_eq!((full.problem(), full.header("retry-after")), (503, "2"));
    assert_eq!(administrate(dashboard.address, "POST", "/simulate").await.problem(), 503);
    assert_eq!(client.llen::<u64, _>(dashboard.keys().pending_messages()).await.unwrap(), 2);
}

#[tokio::test]
async fn without_redis_no_message_is_taken_and_it_comes_back_by_itself() {
    let (dashboard, mut redis, _client, _pool) = whole().await;
    let body = r#"{"user_id":7,"channel_id":9,"content":"x"}"#;
    let mut socket = open(&dashboard).await;
    assert_eq!(post(&dashboard, body).await.status, 201);
    redis.stop().await.unwrap();
    let refused = post(&dashboard, body).await;
    assert_eq!((refused.problem(), refused.header("retry-after")), (503, "2"));
    until("the status is withdrawn", async || get(dashboard.address, "/queue/status").await.status == 503).await;
    redis.restart().await.unwrap();
    until("messages are taken again", async || post(&dashboard, body).await.status == 201).await;
    // That Redis kept nothing.
    while frame(&mut socket).await.expect("the socket outlives redis")["queue_length"] != 1 {}
}

#[tokio::test]
async fn where_the_buffer_is_not_enabled_there_is_none() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    for (method, path) in [("POST", "/messages"), ("GET", "/messages"), ("GET", "/queue/status"), ("GET", "/ws/stats")]
    {
        let refused = ask(dashboard.address, method, path, &[]).await;
        assert!(refused.problem() == 404 && refused.body.contains("messageBuffer.enabled"), "{path}: {}", refused.body);
    }
}

#[tokio::test]
async fn the_socket_brings_all_statistics_each_interval_and_with_each_batch() {
    let (dashboard, _redis, client, _pool) = whole().await;
    let (mut first, mut second) = (open(&dashboard).await, open(&dashboard).await);
    assert!(dashboard.metrics.encode().contains("penstock_dashboard_websocket_clients 2"));
    let keys = |frame: &Value| frame.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let every = "avg_batch_size batch_progress batch_progress_percent batch_threshold batches_ready current_rps \
                 messages_per_second queue_depth queue_length timestamp total_batches total_messages type";
    for socket in [&mut first, &mut second] {
        let frame = frame(socket).await.unwrap();
        assert_eq!((keys(&frame).as_str(), &frame["type"]), (every, &json!("stats_update")));
    }
    let names = dashboard.keys();
    let () = client.lpush(names.pending_messages(), vec!["{}"; 120]).await.unwrap();
    let () = client.set(names.total_messages(), 100, None, None, false).await.unwrap();
    let () = client.set(names.total_batches(), 4, None, None, false).await.unwrap();
    for socket in [&mut first, &mut second] {
        let told = loop {
            let told = frame(socket).await.unwrap();
            if told["total_batches"] == 4 {
                break told;
            }
        };
        for (name, value) in [
            ("queue_depth", json!(120)),
            ("batches_ready", json!(2)),
            ("batch_progress", json!(20)),
            ("batch_progress_percent", json!(40.0)),
            ("avg_batch_size", json!(25.0)),
            ("total_messages", json!(100)),
            ("current_rps", json!(0.0)),
        ] {
            assert_eq!(told[name], value, "{name}");
        }
    }
    let batch = json!({"type": "persisted", "batch_id": "b1", "batch_size": 2, "ids": ["i1", "i2"], "total_batches": 5, "total_messages": 102, "timestamp": "2026-07-04T14:38:08.999Z"});
    let publish = async || client.publish::<i64, _, _>(names.batch_notifications(), batch.to_string()).await;
    until("the dashboard is subscribed", async || publish().await.is_ok_and(|heard| heard > 0)).await;
    for socket in [&mut first, &mut second] {
        let told = loop {
            let told = frame(socket).await.unwrap();
            if told["type"] == "batch_persisted" {
                break told;
            }
        };
        assert_eq!(
            keys(&told),
            "avg_batch_size batch_id batch_progress batch_progress_percent batch_size batch_threshold batches_ready current_rps ids messages_per_second queue_depth queue_length timestamp total_batches total_messages type worker_timestamp"
        );
        assert_eq!(
            (&told["ids"], &told["total_messages"], &told["queue_depth"]),
            (&batch["ids"], &json!(102), &json!(120))
        );
    }
    // What a client says means nothing.
    first.send(Message::Text("hello".into())).await.unwrap();
    assert!(frame(&mut first).await.is_some());
    drop(second);
    until("a client that went is counted out", async || {
        dashboard.metrics.encode().contains("penstock_dashboard_websocket_clients 1")
    })
    .await;
}

#[tokio::test]
async fn sockets_are_for_allowed_pages_and_for_who_may_read_and_count_among_the_live_clients() {
    let redis = TestRedis::start().await.unwrap();
    let limits = Limits { live_clients: 1, ..Limits::default() };
    let dashboard = Dashboard::start_with(&redis.url(), &[ENABLED, ("dashboard.readToken", "sesame")], limits).await;
    let ask = async |headers: &[(&'static str, &str)]| {
        let mut request = format!("ws://{}/ws/stats", dashboard.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        connect_async(request).await.map_err(|error| match error {
            tokio_tungstenite::tungstenite::Error::Http(answer) => answer.status().as_u16(),
            error => panic!("{error}"),
        })
    };
    let token = ("authorization", "Bearer sesame");
    assert_eq!(ask(&[]).await.unwrap_err(), 401);
    assert_eq!(ask(&[token, ("origin", "http://evil.test")]).await.unwrap_err(), 403);
    let held = ask(&[token, ("origin", "http://localhost:3000")]).await.unwrap();
    assert_eq!(ask(&[token]).await.unwrap_err(), 503, "there is place for one");
    let events = super::client::ask(dashboard.address, "GET", "/api/events/stream", &[token]).await;
    assert_eq!(events.problem(), 503, "of either kind");
    drop(held);
    until("the place is free", async || ask(&[token]).await.is_ok()).await;
    let plain = super::client::ask(dashboard.address, "GET", "/ws/stats", &[token]).await;
    assert_eq!(plain.problem(), 426);
}

#[tokio::test]
async fn a_silent_client_is_cut_and_one_that_answers_is_kept() {
    let redis = TestRedis::start().await.unwrap();
    let limits = Limits { ping: Duration::from_millis(100), ..Limits::default() };
    let dashboard = Dashboard::start_with(&redis.url(), &[ENABLED, OFTEN], limits).await;
    dashboard.until_seen().await;
    // Nobody reads from it, so nothing answers the pings.
    let silent = open(&dashboard).await;
    let mut fast = open(&dashboard).await;
    let cut = "penstock_dashboard_slow_clients_cut_total 1\n";
    until("the silent client is cut", async || {
        frame(&mut fast).await.expect("the other one is kept");
        dashboard.metrics.encode().contains(cut)
    })
    .await;
    assert!(frame(&mut fast).await.is_some());
    drop(silent);
}

#[tokio::test]
async fn the_end_is_told_by_a_code_that_says_come_back() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[ENABLED, OFTEN]).await;
    let mut socket = open(&dashboard).await;
    let stuck = open(&dashboard).await;
    frame(&mut socket).await.unwrap();
    dashboard.cancel.cancel();
    let code = loop {
        let message = timeout(Duration::from_secs(30), socket.next()).await.unwrap();
        if let Message::Close(told) = message.expect("a close frame").unwrap() {
            break u16::from(told.unwrap().code);
        }
    };
    assert_eq!(code, 1012);
    timeout(Duration::from_secs(30), dashboard.task).await.unwrap().unwrap().unwrap();
    drop(stuck);
}
