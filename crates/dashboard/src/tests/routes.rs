//! Every route, its shape and its refusals.

use std::time::{Duration, Instant};

use fred::interfaces::{HashesInterface, KeysInterface, ListInterface, StreamsInterface};
use jiff::Timestamp;
use penstock_local::testing::fresh_database;
use serde_json::{Value, json};

use super::client::{ask, get, tell};
use super::{Dashboard, until};

#[tokio::test]
async fn an_empty_redis_gives_every_key_of_every_shape() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let metrics = get(dashboard.address, "/api/metrics").await;
    assert_eq!((metrics.status, metrics.header("content-type")), (200, "application/json"));
    let metrics = metrics.json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(&metrics),
        "apiRequestsPerMinute dbRecords errorRate eventCounts eventsProcessed firehoseStatus flow lastUpdate \
         redis redisLacking rowsAgeSeconds stats systemHealth"
    );
    assert_eq!(keys(&metrics["systemHealth"]), "cpu disk memory network");
    assert_eq!((&metrics["eventsProcessed"], &metrics["errorRate"]), (&json!(0), &json!(0.0)));
    let status = json!({
        "connected": false, "isConnected": false, "url": "", "currentCursor": null,
        "queueDepth": 0, "activeProcessing": 0, "reconnectDelay": 1000, "streamLength": 0, "deadLetterLength": 0,
    });
    assert_eq!(metrics["firehoseStatus"], status);

    assert_eq!(get(dashboard.address, "/api/events/recent").await.body, "[]");
    let history = get(dashboard.address, "/api/metrics/activity-history").await.json();
    let minutes = history.as_array().unwrap();
    assert_eq!(minutes.len(), 1440);
    let began = |minute: &Value| minute["timestamp"].as_i64().unwrap();
    assert!(minutes.windows(2).all(|pair| began(&pair[0]) + 60_000 == began(&pair[1])));
    let age = Timestamp::now().as_millisecond() - began(&minutes[1439]);
    assert!((0..120_000).contains(&age), "{age}");
    assert!(minutes.iter().all(|minute| keys(minute) == "account commit identity timestamp" && minute["commit"] == 0));

    let health = get(dashboard.address, "/health").await.json();
    assert_eq!(keys(&health), "batch_progress batch_threshold batches_pending queue_length redis status timestamp");
    assert_eq!((&health["status"], &health["redis"]), (&json!("healthy"), &json!("connected")));
    let ready = get(dashboard.address, "/ready").await;
    let json = ready.json();
    assert_eq!((ready.status, &json["status"]), (503, &json!("not ready")));
    assert_eq!(keys(&json), "checks details status timestamp");
    ready.fits("GET", "/ready");
    let memory = json["checks"]["memory"].as_str().unwrap();
    assert!(["ok", "critical"].contains(&memory), "{memory}");
    assert_eq!(json["checks"], json!({"firehose": "disconnected", "database": "healthy", "memory": memory}));
    assert_eq!(json["details"]["firehose"], json!({"connected": false, "url": "unknown", "currentCursor": null}));
    assert_eq!(json["details"]["reasons"]["firehose"], "no ingest has reported for 10 s");
    assert!(json["details"]["memory"]["percentUsed"].is_number(), "{json}");
    let ingest = get(dashboard.address, "/api/ingest").await.json();
    assert_eq!(
        keys(&ingest),
        "bulkLength dataLoss eventTime filter gaps lagSeconds paused resets streamCap verification"
    );
}

#[tokio::test]
async fn the_figures_are_those_in_redis() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[("redis.keyPrefix", "p:")]).await;
    let keys = dashboard.keys();
    let status = r#"{"connected":true,"url":"wss://relay.test","currentCursor":"77"}"#;
    let recent: Vec<Value> = (0..50).map(|at| json!({"type": "#commit", "did": format!("did:plc:{at}")})).collect();
    let minute = Timestamp::now().as_second() as u64 / 60;
    let entry = vec![("type", "commit"), ("data", "{}"), ("seq", "1")];
    let counts = vec![("users", "1"), ("posts", "20"), ("likes", "300"), ("blocks", "-4"), ("feed_items", "9")];
    let () = client.hset(keys.record_counts(), counts).await.unwrap();
    let () = client.set(keys.status(), status, None, None, false).await.unwrap();
    let () = client.set(keys.recent_events(), json!(recent).to_string(), None, None, false).await.unwrap();
    let () = client.xgroup_create(keys.stream(), keys.group(), "0", true).await.unwrap();
    for _ in 0..3 {
        let () = client.xadd(keys.stream(), false, None, "*", entry.clone()).await.unwrap();
    }
    let () = client.xreadgroup(keys.group(), "w-0", Some(2), None, false, keys.stream(), ">").await.unwrap();
    let () = client.xadd(keys.bulk(), false, None, "*", entry.clone()).await.unwrap();
    let () = client.xadd(keys.dead_letters(), false, None, "*", entry.clone()).await.unwrap();
    let () = client.lpush(keys.pending_messages(), vec!["{}", "{}"]).await.unwrap();
    let () = client.hset(keys.activity(minute - 1), vec![("commit", "5"), ("account", "6")]).await.unwrap();
    let verified =
        r#"{"mode":"count","signatures":"off","since":"2026-01-01T00:00:00Z","verified":9,"failed":{"rev":1}}"#;
    let filter = r#"{"epoch":"0123456789abcdef","collections":["app.bsky.*"],"excludeRepos":0}"#;
    let left_out = r#"{"since":"2026-01-01T00:00:00Z","ops":{"unlisted":12}}"#;
    let told = vec![
        ("eventTime", "2026-01-01T00:00:00Z"),
        ("paused", "1"),
        ("verified", verified),
        ("filter", filter),
        ("leftOut", left_out),
    ];
    let () = client.hset(keys.ingest_state(), told).await.unwrap();
    let totals = vec![("totalEvents", "8"), ("#commit", "7"), ("#identity", "1"), ("errors", "2")];
    let () = client.hset(keys.cluster_metrics(), totals).await.unwrap();

    let metrics = async || get(dashboard.address, "/api/metrics").await.json();
    until("the totals show", async || metrics().await["eventsProcessed"] == 8).await;
    let metrics = metrics().await;
    assert_eq!(metrics["dbRecords"], 321);
    assert_eq!(metrics["eventCounts"], json!({"#commit": 7, "#identity": 1, "#account": 0}));
    assert_eq!(metrics["errorRate"], 25.0);
    assert!(metrics["apiRequestsPerMinute"].as_u64().unwrap() > 0);
    let status = json!({
        "connected": true, "isConnected": true, "url": "wss://relay.test", "currentCursor": "77",
        "queueDepth": 2, "activeProcessing": 2, "reconnectDelay": 1000, "streamLength": 3, "deadLetterLength": 1,
    });
    assert_eq!(metrics["firehoseStatus"], status);

    assert_eq!(get(dashboard.address, "/api/events/recent").await.json(), json!(recent[..10]));
    let history = get(dashboard.address, "/api/metrics/activity-history").await.json();
    let counted = json!({"timestamp": (minute - 1) * 60_000, "commit": 5, "identity": 0, "account": 6});
    assert!(history.as_array().unwrap().contains(&counted));
    assert_eq!(get(dashboard.address, "/health").await.json()["queue_length"], 2);
    let ingest = get(dashboard.address, "/api/ingest").await.json();
    assert!(ingest["lagSeconds"].as_f64().unwrap() > 0.0 && ingest["paused"] == true, "{ingest}");
    assert_eq!(ingest["bulkLength"], 1);
    let verification = &ingest["verification"];
    assert_eq!((&verification["mode"], &verification["verified"]), (&json!("count"), &json!(9)));
    assert_eq!(verification["failed"], json!({"rev": 1}));
    let filter = &ingest["filter"];
    assert_eq!((&filter["collections"], &filter["repos"]), (&json!(["app.bsky.*"]), &Value::Null));
    assert_eq!(filter["leftOut"], json!({"unlisted": 12}));
    let () = client.del(keys.status()).await.unwrap();
    until("what the last ingest found goes with it", async || {
        let ingest = get(dashboard.address, "/api/ingest").await.json();
        ingest["verification"].is_null() && ingest["filter"].is_null()
    })
    .await;
}

#[tokio::test]
async fn ready_asks_for_the_relay_and_for_postgres_where_one_is_set() {
    let database = fresh_database().await.unwrap();
    let (dashboard, _redis, client) = Dashboard::with_redis(&[("postgres.url", &database)]).await;
    let status = r#"{"connected":true,"url":"wss://relay.test","currentCursor":"77"}"#;
    let () = client.set(dashboard.keys().status(), status, None, None, false).await.unwrap();
    until("ready", async || get(dashboard.address, "/ready").await.status == 200).await;
    let ready = get(dashboard.address, "/ready").await.json();
    assert_eq!((&ready["status"], ready.get("details")), (&json!("ready"), None));
    assert_eq!(ready["checks"], json!({"firehose": "connected", "database": "healthy", "memory": "ok"}));

    let nobody = "postgres://nobody@127.0.0.1:1/none";
    let other = Dashboard::start(dashboard.settings.redis_url.expose(), &[("postgres.url", nobody)]).await;
    let reasons = async || get(other.address, "/ready").await.json()["details"]["reasons"].take();
    until("postgres is missed", async || reasons().await == json!({"database": "postgres does not answer"})).await;
    let ready = get(other.address, "/ready").await.json();
    assert_eq!(ready["checks"]["database"], "unhealthy");
    let firehose = json!({"connected": true, "url": "wss://relay.test", "currentCursor": "77"});
    assert_eq!(ready["details"]["firehose"], firehose);
}

#[tokio::test]
async fn a_program_that_asks_for_json_is_told_what_is_here() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("messageBuffer.batchDelay", "1500ms")]).await;
    let ask = async |method, accept| ask(dashboard.address, method, "/", &[("accept", accept)]).await;
    let told = ask("GET", "application/json, text/plain, */*").await;
    assert_eq!(
        (told.status, told.header("content-type"), told.header("cache-control")),
        (200, "application/json", "no-store")
    );
    assert!(told.header("vary").contains("accept,"), "{}", told.header("vary"));
    let here = told.json();
    assert_eq!((&here["service"], &here["status"]), (&json!("penstock"), &json!("running")));
    assert_eq!(here["batch_config"], json!({"batch_size": 50, "timeout_seconds": 1.5}));
    for route in ["POST /messages", "GET /health", "GET /ws/stats", "DELETE /reset"] {
        assert!(here["endpoints"][route].is_string(), "{route}: {here}");
    }
    assert_eq!(
        (ask("HEAD", "application/json").await.body.as_str(), ask("GET", "*/*").await.header("content-type")),
        ("", "text/html; charset=utf-8")
    );
}

/// Asks how the process is, which it says at once, whatever Redis does.
async fn health(dashboard: &Dashboard) -> (u16, Value) {
    let asked = Instant::now();
    let answer = get(dashboard.address, "/health").await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    answer.fits("GET", "/health");
    (answer.status, answer.json())
}

const AWAY: [(&str, &str); 3] =
    [("redis.commandTimeout", "1m"), ("dashboard.metricsInterval", "1m"), ("messageBuffer.batchSize", "7")];

#[tokio::test]
async fn health_is_lost_with_redis_at_once_and_comes_back_with_it() {
    let (dashboard, mut redis, client) = Dashboard::with_redis(&AWAY[2..]).await;
    let () = client.lpush(dashboard.keys().pending_messages(), vec!["{}"; 17]).await.unwrap();
    let (status, told) = health(&dashboard).await;
    let figures = ["status", "redis", "queue_length", "batch_threshold", "batch_progress", "batches_pending"];
    assert_eq!(
        (status, figures.map(|name| told[name].clone())),
        (200, [json!("healthy"), json!("connected"), json!(17), json!(7), json!(3), json!(2)])
    );
    redis.kill();
    let (status, told) = health(&dashboard).await;
    assert_eq!(
        (status, figures.map(|name| told[name].clone())),
        (503, [json!("unhealthy"), json!("disconnected"), json!(0), json!(7), json!(0), json!(0)])
    );
    assert!(told["detail"].is_string(), "{told}");
    redis.restart().await.unwrap();
    until("redis is seen again", async || health(&dashboard).await.0 == 200).await;
}

#[tokio::test]
async fn health_is_lost_at_once_with_a_redis_that_does_not_answer() {
    let (dashboard, redis, _client) = Dashboard::with_redis(&AWAY).await;
    assert_eq!(health(&dashboard).await.0, 200);
    let signal = |signal: &str| {
        let pid = redis.pid().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    for _ in 0..3 {
        let (status, told) = health(&dashboard).await;
        assert_eq!((status, &told["redis"]), (503, &json!("disconnected")));
    }
    signal("-CONT");
    until("redis answers again", async || health(&dashboard).await.0 == 200).await;
}

#[tokio::test]
async fn only_allowed_pages_may_ask() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let from = async |method, origin| {
        let headers = [("origin", origin), ("access-control-request-method", "GET")];
        ask(dashboard.address, method, "/api/metrics", &headers).await
    };
    for origin in ["http://localhost:3000", "http://127.0.0.1:3000", "http://dash.test:8000"] {
        let answer = from("GET", origin).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, origin));
        assert!(answer.header("vary").contains("origin"));
        let preflight = from("OPTIONS", origin).await;
        assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, origin));
        assert_eq!(preflight.header("access-control-allow-methods"), "GET,HEAD");
    }
    for method in ["GET", "OPTIONS"] {
        let answer = from(method, "http://evil.test").await;
        assert_eq!((answer.problem(), answer.header("access-control-allow-origin")), (403, ""));
    }
}

#[tokio::test]
async fn the_page_is_served_with_a_policy_that_lets_nothing_else_in() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let page = get(dashboard.address, "/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.body.contains("Events Processed"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'; script-src 'self';") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!((page.header("x-content-type-options"), page.header("referrer-policy")), ("nosniff", "no-referrer"));
    let tag = page.header("etag").to_owned();
    let again = ask(dashboard.address, "GET", "/", &[("if-none-match", &tag)]).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(get(dashboard.address, "/assets/nothing.js").await.problem(), 404);
    // None where the page was not built.
    for path in page.body.split('"').filter_map(|part| part.strip_prefix("./assets/")) {
        let file = get(dashboard.address, &format!("/assets/{path}")).await;
        let kind = if path.ends_with(".css") { "text/css" } else { "text/javascript" };
        assert_eq!((file.status, file.header("content-type")), (200, format!("{kind}; charset=utf-8").as_str()));
        assert!(!file.body.is_empty() && !file.header("cache-control").is_empty());
    }
}

#[tokio::test]
async fn errors_are_problems_and_head_is_answered_without_a_body() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    assert_eq!(get(dashboard.address, "/nothing").await.problem(), 404);
    let refused = ask(dashboard.address, "POST", "/api/metrics", &[]).await;
    assert_eq!((refused.problem(), refused.header("allow")), (405, "GET,HEAD"));
    assert_eq!(refused.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
    for path in ["/", "/api/metrics", "/api/events/recent", "/api/events/stream", "/health"] {
        let answer = ask(dashboard.address, "HEAD", path, &[]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
    }
    let () = client.set(dashboard.keys().recent_events(), "no list", None, None, false).await.unwrap();
    assert_eq!(get(dashboard.address, "/api/events/recent").await.problem(), 502);
    let text = dashboard.metrics.encode();
    assert!(text.contains("penstock_dashboard_http_requests_total{route=\"/api/events/stream\"} 1\n"), "{text}");
    assert!(text.contains("penstock_dashboard_sse_clients 0"), "{text}");
}

#[tokio::test]
async fn where_a_token_is_set_only_its_holders_read() {
    let tokens = [("dashboard.readToken", "sesame"), ("dashboard.adminToken", "open sesame")];
    let (dashboard, _redis, _client) = Dashboard::with_redis(&tokens).await;
    let address = dashboard.address;
    for path in
        ["/api/metrics", "/api/ingest", "/api/events/recent", "/api/events/stream", "/api/metrics/activity-history"]
    {
        let refused = get(address, path).await;
        assert_eq!((refused.problem(), refused.header("www-authenticate")), (401, "Bearer"), "{path}");
    }
    for path in ["/", "/health", "/ready"] {
        assert_ne!(get(address, path).await.status, 401, "{path}");
    }
    let read = async |name: &str, value: &str| ask(address, "GET", "/api/metrics", &[(name, value)]).await.status;
    assert_eq!(read("authorization", "Bearer sesame").await, 200);
    assert_eq!(read("authorization", "bearer open sesame").await, 200, "who may administrate may read");
    for wrong in ["Bearer", "Bearer ", "Bearer sesam", "Basic sesame", "Bearer sesame2"] {
        assert_eq!(read("authorization", wrong).await, 401, "{wrong}");
    }
    assert_eq!(read("cookie", "penstock_session=sesame").await, 401);

    let sign_in = async |body: &str| tell(address, "POST", "/api/session", body).await;
    assert_eq!(sign_in(r#"{"token":"sesam"}"#).await.problem(), 401);
    assert_eq!(sign_in("sesame").await.problem(), 400);
    let opened = sign_in(r#"{"token":"sesame"}"#).await;
    let cookie = opened.header("set-cookie");
    assert_eq!(opened.status, 204);
    assert!(cookie.contains("; HttpOnly; SameSite=Strict;") && !cookie.contains("sesame"), "{cookie}");
    let session = cookie.split(';').next().unwrap();
    assert_eq!(read("cookie", &format!("theme=dark; {session}")).await, 200);
    let ended = ask(address, "DELETE", "/api/session", &[]).await;
    assert!(ended.header("set-cookie").starts_with("penstock_session=;"), "{}", ended.header("set-cookie"));
}

#[tokio::test]
async fn where_no_token_is_set_reading_is_open_and_nobody_signs_in() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[super::NO_TOKEN]).await;
    assert_eq!(get(dashboard.address, "/api/metrics").await.status, 200);
    assert_eq!(tell(dashboard.address, "POST", "/api/session", r#"{"token":"x"}"#).await.problem(), 404);
}
