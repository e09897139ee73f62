//! Dead letters over HTTP: pages, replay as they were, deletion.

use fred::clients::Client;
use fred::interfaces::{KeysInterface, StreamsInterface};
use fred::types::Value as Reply;
use penstock_core::entry::RawEntry;
use penstock_core::stream::StreamId;
use serde_json::{Value, json};

use super::Dashboard;
use super::client::{Answer, administrate, get};

const AT: &str = "/api/redis/dead-letters";
const DATA: &str = r#"{"did":"did:plc:ä","active":true,"status":null,"time":"2026-07-04T14:38:08.999Z"}"#;

/// Adds a dead letter as a worker does.
async fn bury(dashboard: &Dashboard, client: &Client, kind: &str, orig: &str) -> String {
    let fields = vec![
        ("type", kind),
        ("data", DATA),
        ("seq", "42"),
        ("origId", orig),
        ("deliveries", "3"),
        ("error", "op 0: too long"),
        ("consumer", "w-0"),
    ];
    client.xadd(dashboard.keys().dead_letters(), false, None, "*", fields).await.unwrap()
}

/// The entries of the stream as a worker reads them.
async fn entries(dashboard: &Dashboard, client: &Client) -> Vec<RawEntry<String>> {
    let listed: Vec<(String, Vec<String>)> =
        client.xrange(dashboard.keys().stream(), "-", "+", None).await.unwrap_or_else(|error| panic!("{error}"));
    let entry = |(id, flat): (String, Vec<String>)| {
        let fields = flat.chunks(2).map(|pair| (pair[0].as_str(), pair[1].clone())).collect::<Vec<_>>();
        RawEntry::from_fields(id.parse().unwrap(), fields)
    };
    listed.into_iter().map(entry).collect()
}

async fn length(client: &Client, key: &str) -> u64 {
    client.xlen(key).await.unwrap()
}

fn ids(page: &Answer) -> Vec<String> {
    page.json()["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn letters_are_listed_in_pages_and_one_by_one() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let none = get(dashboard.address, AT).await;
    none.fits("GET", AT);
    assert_eq!(none.json(), json!({"items": [], "cursor": null}));

    let mut added = Vec::new();
    for at in 0..5 {
        added.insert(0, bury(&dashboard, &client, "account", &format!("9-{at}")).await);
    }
    let (mut seen, mut path) = (Vec::new(), format!("{AT}?limit=2"));
    loop {
        let page = get(dashboard.address, &path).await;
        page.fits("GET", AT);
        assert!(page.json()["items"].as_array().unwrap().len() <= 2);
        seen.extend(ids(&page));
        let Value::String(cursor) = page.json()["cursor"].take() else { break };
        path = format!("{AT}?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, added);
    let one = get(dashboard.address, &format!("{AT}/{}", added[0])).await;
    one.fits("GET", "/api/redis/dead-letters/{id}");
    let expected = json!({
        "id": added[0], "type": "account", "data": DATA, "seq": "42", "origId": "9-4", "deliveries": "3",
        "error": "op 0: too long", "consumer": "w-0",
    });
    assert_eq!(one.json(), expected);
    assert_eq!(get(dashboard.address, AT).await.json()["items"][0], expected);

    // Of another writer, with what it has.
    let fields = vec![("type", "commit"), ("worker", "7")];
    let id: String = client.xadd(dashboard.keys().dead_letters(), false, None, "*", fields).await.unwrap();
    let other = get(dashboard.address, &format!("{AT}/{id}")).await;
    other.fits("GET", "/api/redis/dead-letters/{id}");
    assert_eq!((&other.json()["worker"], &other.json()["data"]), (&json!("7"), &json!("")));
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let large = "x".repeat(700_000);
    for _ in 0..3 {
        let fields = vec![("type", "commit"), ("data", large.as_str()), ("seq", "1"), ("origId", "1-0")];
        let _: String = client.xadd(dashboard.keys().dead_letters(), false, None, "*", fields).await.unwrap();
    }
    let page = get(dashboard.address, AT).await;
    assert_eq!(ids(&page).len(), 2);
    let rest = get(dashboard.address, &format!("{AT}?cursor={}", page.json()["cursor"].as_str().unwrap())).await;
    assert_eq!((ids(&rest).len(), &rest.json()["cursor"]), (1, &Value::Null));
}

#[tokio::test]
async fn wrong_input_is_named() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("cursor=x", "cursor"),
        ("limit=1&limit=2", "limit"),
    ] {
        let refused = get(dashboard.address, &format!("{AT}?{query}")).await;
        assert_eq!(refused.problem(), 400, "{query}");
        assert!(refused.json()["detail"].as_str().unwrap().contains(field), "{query}: {}", refused.body);
    }
    for id in ["x", "1-x", "%ff"] {
        assert_eq!(get(dashboard.address, &format!("{AT}/{id}")).await.problem(), 400, "{id}");
    }
    assert_eq!(get(dashboard.address, &format!("{AT}/1-0")).await.problem(), 404);
    for (method, path) in [("POST", "1-0/replay"), ("DELETE", "1-0")] {
        assert_eq!(administrate(dashboard.address, method, &format!("{AT}/{path}")).await.problem(), 404);
    }
    let () = client.set(dashboard.keys().dead_letters(), "no stream", None, None, false).await.unwrap();
    assert_eq!(get(dashboard.address, AT).await.problem(), 503);
}

#[tokio::test]
async fn a_replayed_letter_is_read_as_the_entry_it_was() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let id = bury(&dashboard, &client, "account", "1700000000000-7").await;
    let answer = administrate(dashboard.address, "POST", &format!("{AT}/{id}/replay")).await;
    answer.fits("POST", "/api/redis/dead-letters/{id}/replay");
    assert_eq!(answer.json(), json!({"success": true, "replayed": 1, "left": 0}));
    let entries = entries(&dashboard, &client).await;
    let [raw] = &entries[..] else { panic!("one entry: {entries:?}") };
    let entry = raw.decode().unwrap();
    let first: StreamId = "1700000000000-7".parse().unwrap();
    assert_eq!((entry.order, entry.seq.map(|seq| seq.get())), (first, Some(42)));
    assert_eq!((raw.kind.as_deref(), raw.data.as_deref()), (Some("account"), Some(DATA)));
    let flat: Vec<(String, Vec<String>)> = client.xrange(dashboard.keys().stream(), "-", "+", None).await.unwrap();
    let names: Vec<&str> = flat[0].1.iter().step_by(2).map(String::as_str).collect();
    assert_eq!(names, ["type", "data", "seq", "origId"], "the order is part of the contract");
    assert_eq!(length(&client, &dashboard.keys().dead_letters()).await, 0);
    assert_eq!(administrate(dashboard.address, "POST", &format!("{AT}/{id}/replay")).await.problem(), 404);
}

#[tokio::test]
async fn whoever_replays_at_once_doubles_nothing_and_frames_stay() {
    const LETTERS: usize = 350;
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let raw = bury(&dashboard, &client, "raw", "").await;
    let message = bury(&dashboard, &client, "message", "").await;
    for at in 0..LETTERS {
        bury(&dashboard, &client, "account", &format!("5-{at}")).await;
    }
    let path = format!("{AT}/replay");
    let all = async || administrate(dashboard.address, "POST", &path).await;
    let (a, b, c) = tokio::join!(all(), all(), all());
    let told = [a, b, c].map(|answer| {
        answer.fits("POST", AT_REPLAY);
        answer.json()["replayed"].as_u64().unwrap()
    });
    assert_eq!(told.iter().sum::<u64>(), LETTERS as u64, "{told:?}");
    let mut orders: Vec<StreamId> =
        entries(&dashboard, &client).await.iter().map(|raw| raw.decode().unwrap().order).collect();
    orders.sort();
    assert!(orders.iter().enumerate().all(|(at, order)| order.seq == at as u64) && orders.len() == LETTERS);
    for id in [raw, message] {
        assert_eq!(administrate(dashboard.address, "POST", &format!("{AT}/{id}/replay")).await.problem(), 409);
    }
    assert_eq!(length(&client, &dashboard.keys().dead_letters()).await, 2);
}

const AT_REPLAY: &str = "/api/redis/dead-letters/replay";

#[tokio::test]
async fn a_full_stream_takes_no_more_and_what_waits_stays() {
    // Eight of ten entries are the high watermark.
    let (dashboard, _redis, client) = Dashboard::with_redis(&[("redis.maxStreamLen", "10")]).await;
    for at in 0..12 {
        bury(&dashboard, &client, "account", &format!("5-{at}")).await;
    }
    let full = administrate(dashboard.address, "POST", AT_REPLAY).await;
    assert_eq!((full.problem(), full.header("retry-after")), (503, "2"));
    assert!(full.body.contains("8 dead letters are back"), "{}", full.body);
    let id = ids(&get(dashboard.address, AT).await).pop().unwrap();
    assert_eq!(administrate(dashboard.address, "POST", &format!("{AT}/{id}/replay")).await.problem(), 503);
    assert_eq!(length(&client, dashboard.keys().stream()).await, 8);
    assert_eq!(length(&client, &dashboard.keys().dead_letters()).await, 4);

    // So does a stream that is none.
    let _: Reply = client.del(dashboard.keys().stream()).await.unwrap();
    let () = client.set(dashboard.keys().stream(), "no stream", None, None, false).await.unwrap();
    assert_eq!(administrate(dashboard.address, "POST", AT_REPLAY).await.problem(), 503);
    assert_eq!(length(&client, &dashboard.keys().dead_letters()).await, 4);
}

#[tokio::test]
async fn letters_are_deleted_one_by_one_and_all_at_once() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let first = bury(&dashboard, &client, "raw", "").await;
    for _ in 0..3 {
        bury(&dashboard, &client, "commit", "1-0").await;
    }
    let one = administrate(dashboard.address, "DELETE", &format!("{AT}/{first}")).await;
    one.fits("DELETE", "/api/redis/dead-letters/{id}");
    assert_eq!(one.json(), json!({"success": true, "deleted": 1}));
    let all = administrate(dashboard.address, "DELETE", AT).await;
    all.fits("DELETE", AT);
    assert_eq!(all.json(), json!({"success": true, "deleted": 3}));
    assert_eq!(administrate(dashboard.address, "DELETE", AT).await.json()["deleted"], 0);
}
