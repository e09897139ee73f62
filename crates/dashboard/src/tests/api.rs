//! The API as a whole: each route as it is described, rates, packed answers, workers, what an administrator asks for.

use std::time::Duration;

use fred::interfaces::{EventInterface, HashesInterface, KeysInterface, PubsubInterface, StreamsInterface};
use penstock_core::redis;
use serde_json::{Value, json};

use super::client::{administrate, ask, get, tell};
use super::{Dashboard, until};

/// Every route that is described, with its method; the names in its path are filled in.
fn routes(of: &Value) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for (route, methods) in of["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            all.push((method.to_uppercase(), route.clone(), route.replace("{id}", "1-0")));
        }
    }
    all
}

#[tokio::test]
async fn every_route_answers_as_it_is_described() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let served = get(dashboard.address, "/api/openapi.json").await;
    let api = served.json();
    assert_eq!((served.status, &api), (200, &crate::openapi()));
    assert_eq!(api["openapi"], "3.1.0");
    for (method, route, path) in routes(&api) {
        let operation = &api["paths"][&route][method.to_lowercase()];
        assert!(operation["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{method} {route}");
        if route == "/api/events/stream" || route.starts_with("/ws/") {
            continue;
        }
        administrate(dashboard.address, &method, &path).await.fits(&method, &route);
    }
}

#[tokio::test]
async fn every_route_keeps_to_its_guard() {
    let tokens = [("dashboard.readToken", "sesame"), ("dashboard.adminToken", "open sesame")];
    let (dashboard, _redis, _client) = Dashboard::with_redis(&tokens).await;
    let api = crate::openapi();
    for (method, route, path) in routes(&api) {
        let security = api["paths"][&route][method.to_lowercase()]["security"].as_array().unwrap();
        let (open, admin) = (security.is_empty(), !security.contains(&json!({})) && !security.is_empty());
        let nobody = ask(dashboard.address, &method, &path, &[]).await.status;
        assert_eq!(nobody == 401, !open || path == "/api/session" && nobody == 401, "{method} {route}: {nobody}");
        if admin {
            let reader = ask(dashboard.address, &method, &path, &[("authorization", "Bearer sesame")]).await;
            assert_eq!(reader.problem(), 403, "{method} {route}");
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_for_changes_too_fast_is_held_back() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("dashboard.postRate", "2")]).await;
    let sign_out = async || ask(dashboard.address, "DELETE", "/api/session", &[]).await;
    until("the rate is exceeded", async || sign_out().await.status == 429).await;
    let held = async || {
        let answer = sign_out().await;
        answer.status == 429 && answer.problem() == 429 && answer.header("retry-after") == "1"
    };
    until("it is said when to come back", held).await;
    assert_eq!(get(dashboard.address, "/api/metrics").await.status, 200, "reading is not counted");
    until("it is let in again", async || sign_out().await.status == 204).await;
}

#[tokio::test]
async fn answers_are_packed_for_whoever_takes_them_so_but_for_the_live_ones() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let packed = async |coding: &str| {
        let answer = ask(dashboard.address, "GET", "/api/metrics", &[("accept-encoding", coding)]).await;
        assert!(answer.header("vary").contains("accept-encoding"), "{:?}", answer.headers);
        answer.header("content-encoding").to_owned()
    };
    assert_eq!([packed("gzip").await, packed("gzip, br").await, packed("zstd").await], ["gzip", "br", ""]);
    let headers = [("accept-encoding", "gzip, br")];
    let live = super::client::Stream::open_with(dashboard.address, 4096, &headers).await;
    assert_eq!((live.answer.status, live.answer.header("content-encoding")), (200, ""));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let tokens = [("dashboard.readToken", "sesame")];
    let (dashboard, _redis, _client) = Dashboard::with_redis(&tokens).await;
    let body = format!(r#"{{"token":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(tell(dashboard.address, "POST", "/api/session", &body).await.problem(), 413);
}

#[tokio::test]
async fn workers_are_told_with_their_rates() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let keys = dashboard.keys();
    let list = async || {
        let answer = get(dashboard.address, "/api/workers").await;
        answer.fits("GET", "/api/workers");
        answer.json()
    };
    assert_eq!(list().await, json!([]), "before the first worker");
    let () = client.xgroup_create(keys.stream(), keys.group(), "0", true).await.unwrap();
    let entry = vec![("type", "commit"), ("data", "{}"), ("seq", "1")];
    let () = client.xadd(keys.stream(), false, None, "*", entry).await.unwrap();
    let _: fred::types::Value =
        client.xreadgroup(keys.group(), "w-1", Some(2), None, false, keys.stream(), ">").await.unwrap();
    let () = client.xgroup_createconsumer(keys.stream(), keys.group(), "w-0").await.unwrap();
    let () = client.set(keys.consumer_applied("w-0"), 1000, None, None, false).await.unwrap();
    until("both show", async || list().await.as_array().unwrap().len() == 2).await;
    let workers = list().await;
    assert_eq!((&workers[0]["name"], &workers[0]["pending"]), (&json!("w-0"), &json!(0)));
    assert_eq!((&workers[1]["name"], &workers[1]["pending"]), (&json!("w-1"), &json!(1)));
    assert!(workers[0]["alive"] == true && workers[0]["idleSeconds"].as_f64().unwrap() < 60.0, "{workers}");
    assert_eq!(workers[1]["entriesPerSecond"], Value::Null, "it does not say");
    let () = client.set(keys.consumer_applied("w-0"), 5000, None, None, false).await.unwrap();
    until("the rate shows", async || list().await[0]["entriesPerSecond"].as_f64() > Some(0.0)).await;
}

#[tokio::test]
async fn a_refresh_brings_new_figures_at_once() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[("dashboard.metricsInterval", "1m")]).await;
    let processed = async || get(dashboard.address, "/api/metrics").await.json()["eventsProcessed"].take();
    let () = client.hset(dashboard.keys().cluster_metrics(), ("totalEvents", 5)).await.unwrap();
    let () = client.hset(dashboard.keys().record_counts(), ("users", 3)).await.unwrap();
    assert_eq!(processed().await, 0);
    let refreshed = administrate(dashboard.address, "POST", "/api/metrics/refresh").await;
    refreshed.fits("POST", "/api/metrics/refresh");
    let told = refreshed.json();
    assert_eq!((&told["success"], processed().await), (&json!(true), json!(5)));
    let stats = json!({"totalUsers": 3, "totalPosts": 0, "totalLikes": 0, "totalReposts": 0, "totalFollows": 0, "totalBlocks": 0});
    assert!(told["stats"] == stats && told["message"].is_string(), "{told}");
}

#[tokio::test]
async fn a_reconnect_is_asked_of_ingest_where_there_is_one() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let reconnect = async || administrate(dashboard.address, "POST", "/api/firehose/reconnect").await;
    assert_eq!(reconnect().await.problem(), 503, "nobody ingests");
    let ingest = redis::connect_subscriber(&dashboard.settings).await.unwrap();
    let mut asked = ingest.message_rx();
    let () = ingest.subscribe(dashboard.keys().ingest_control()).await.unwrap();
    let status = r#"{"connected":true,"url":"wss://relay.test","currentCursor":"77"}"#;
    let () = client.set(dashboard.keys().status(), status, None, None, false).await.unwrap();
    until("ingest is seen", async || reconnect().await.status == 200).await;
    let told = tokio::time::timeout(Duration::from_secs(30), asked.recv()).await.unwrap().unwrap();
    assert_eq!(told.value.as_str().as_deref(), Some("reconnect"));
}
