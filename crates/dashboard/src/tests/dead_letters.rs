//! Dead letters over HTTP: pages, replay as they were, deletion.

use fred::clients::Client;
use fred::interfaces::{
    ClientLike, HashesInterface, KeysInterface, LuaInterface, SortedSetsInterface, StreamsInterface,
};
use fred::types::Value as Reply;
use penstock_core::dead_letter::{self, Author, Bounds};
use penstock_core::entry::RawEntry;
use penstock_core::stream::StreamId;
use serde_json::{Value, json};

use super::Dashboard;
use super::client::{Answer, administrate, get};

const AT: &str = "/api/redis/dead-letters";
const DATA: &str = r#"{"did":"did:plc:ä","active":true,"status":null,"time":"2026-07-04T14:38:08.999Z"}"#;

/// Adds a dead letter as a worker does.
pub(super) async fn bury(dashboard: &Dashboard, client: &Client, kind: &str, orig: &str) -> String {
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

/// Adds a dead letter as ingest does.
pub(super) async fn set_aside(dashboard: &Dashboard, client: &Client, kind: &str, orig: &str) -> String {
    let bounds = Bounds { bytes: 64_000_000, count: 10_000 };
    let add = "dead_letter(KEYS[1], ARGV[1], ARGV[2], '', ARGV[3], '1', 'a bound', 'ingest-a', 'did:plc:a')
        return redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]";
    let script = format!("{}{add}", dead_letter::script(Author::Ingest, bounds));
    let mut keys = vec![dashboard.keys().raw_letters()];
    keys.extend(dashboard.keys().beside_letters(Author::Ingest));
    client.eval(script, keys, vec![kind, DATA, orig]).await.unwrap()
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
    assert_eq!(answer.json(), json!({"success": true, "replayed": 1, "left": 0, "refused": 0}));
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
    let raw = set_aside(&dashboard, &client, "raw", "").await;
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
    assert_eq!(length(&client, &dashboard.keys().dead_letters()).await, 1);
    assert_eq!(length(&client, &dashboard.keys().raw_letters()).await, 1);
}

#[tokio::test]
async fn letters_of_ingest_stand_among_the_others_and_are_read_replayed_and_deleted_as_they_are() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let (mut added, mut of_ingest) = (Vec::new(), Vec::new());
    for at in 0..4 {
        added.push(bury(&dashboard, &client, "account", &format!("9-{at}")).await);
        let kind = if at == 2 { "account" } else { "raw" };
        of_ingest.push(set_aside(&dashboard, &client, kind, "9-7").await);
    }
    added.extend(of_ingest.iter().cloned());
    // Within a millisecond those of ingest count as the later ones.
    added.sort_by_key(|id| std::cmp::Reverse(id.parse::<StreamId>().unwrap()));
    let (mut seen, mut path) = (Vec::new(), format!("{AT}?limit=3"));
    loop {
        let page = get(dashboard.address, &path).await;
        page.fits("GET", AT);
        seen.extend(ids(&page));
        let Value::String(cursor) = page.json()["cursor"].take() else { break };
        path = format!("{AT}?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, added);
    let one = get(dashboard.address, &format!("{AT}/{}", of_ingest[3])).await;
    one.fits("GET", "/api/redis/dead-letters/{id}");
    assert_eq!((&one.json()["type"], &one.json()["repo"]), (&json!("raw"), &json!("did:plc:a")));
    administrate(dashboard.address, "POST", "/api/metrics/refresh").await;
    let metrics = get(dashboard.address, "/api/metrics").await;
    assert_eq!(metrics.json()["firehoseStatus"]["deadLetterLength"], 8, "{}", metrics.body);

    let deleted = administrate(dashboard.address, "DELETE", &format!("{AT}/{}", of_ingest[3])).await;
    assert_eq!(deleted.json()["deleted"], 1);
    let replayed = administrate(dashboard.address, "POST", &format!("{AT}/{}/replay", of_ingest[2])).await;
    assert_eq!(replayed.json(), json!({"success": true, "replayed": 1, "left": 0, "refused": 0}));
    let raw = administrate(dashboard.address, "POST", &format!("{AT}/{}/replay", of_ingest[1])).await;
    assert_eq!(raw.problem(), 409);
    let marks: u64 = client.zcard(dashboard.keys().raw_letters_index()).await.unwrap();
    assert_eq!((marks, length(&client, &dashboard.keys().raw_letters()).await), (2, 2), "no mark stays behind");
    assert_eq!(administrate(dashboard.address, "DELETE", AT).await.json()["deleted"], 6);
    assert_eq!(get(dashboard.address, AT).await.json()["items"], json!([]));
}

#[tokio::test]
async fn what_is_older_than_the_traces_of_deletes_is_refused_with_the_reason() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let held = dashboard.keys().dead_letters_held();
    let time: Vec<String> =
        client.custom(fred::types::CustomCommand::new_static("TIME", None, false), Vec::<String>::new()).await.unwrap();
    let now: u64 = time[0].parse::<u64>().unwrap() * 1000;
    let (old, gone, young) =
        (format!("{}-0", now - 61_000), format!("{}-5", now - 30_000), format!("{}-6", now - 30_000));
    // A worker that holds letters for a minute removed the traces below the younger one.
    let told = vec![("hold", "60000".to_owned()), ("below", young.clone())];
    let () = client.hset(&held, told).await.unwrap();
    let mut refused = Vec::new();
    for orig in [&old, &gone] {
        refused.push(bury(&dashboard, &client, "account", orig).await);
        refused.push(set_aside(&dashboard, &client, "account", orig).await);
    }
    for id in &refused {
        let answer = administrate(dashboard.address, "POST", &format!("{AT}/{id}/replay")).await;
        assert_eq!(answer.problem(), 410);
        answer.fits("POST", "/api/redis/dead-letters/{id}/replay");
        assert!(answer.body.contains("worker.letterHold") && answer.body.contains("deleted"), "{}", answer.body);
    }
    bury(&dashboard, &client, "account", &young).await;
    bury(&dashboard, &client, "message", "").await;
    let all = administrate(dashboard.address, "POST", AT_REPLAY).await;
    all.fits("POST", AT_REPLAY);
    assert_eq!(all.json(), json!({"success": true, "replayed": 1, "left": 1, "refused": 4}));
    // What is on its way holds the traces: the worker reads this before it removes any.
    let replayed = entries(&dashboard, &client).await;
    let [one] = &replayed[..] else { panic!("{replayed:?}") };
    let stamps: Vec<String> = client.hmget(&held, vec!["replayed", "replayedOrder"]).await.unwrap();
    assert_eq!(stamps, [one.id.to_string(), young.clone()]);
    // A second one keeps the older of both.
    let () = client.hset(&held, ("below", "0-0")).await.unwrap();
    bury(&dashboard, &client, "account", &gone).await;
    administrate(dashboard.address, "POST", AT_REPLAY).await;
    bury(&dashboard, &client, "account", &young).await;
    administrate(dashboard.address, "POST", AT_REPLAY).await;
    let order: String = client.hget(&held, "replayedOrder").await.unwrap();
    assert_eq!(order, gone);
    // Without a word of a worker nothing is refused.
    let () = client.del(&held).await.unwrap();
    assert_eq!(administrate(dashboard.address, "POST", AT_REPLAY).await.json()["replayed"], 2);
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

#[tokio::test]
async fn a_huge_letter_is_shown_cut_and_downloaded_whole_and_letters_are_opened_at_a_bounded_rate() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[("redis.commandTimeout", "10s")]).await;
    // Its characters have two bytes and begin at odd places: it is cut through one.
    let data = format!("\"{}\"", "ä".repeat(2_000_000));
    let fields = vec![("type", "commit"), ("data", &data), ("seq", "42"), ("error", "too large"), ("consumer", "w-0")];
    let id: String = client.xadd(dashboard.keys().dead_letters(), false, None, "*", fields).await.unwrap();
    let is_cut = |letter: &Value| {
        assert_eq!(letter["cutOf"], data.len(), "{}", letter["id"]);
        let shown = letter["data"].as_str().unwrap();
        assert!(shown.len().abs_diff(512 * 1024) < 4 && data.starts_with(shown), "{} bytes", shown.len());
    };
    let one = get(dashboard.address, &format!("{AT}/{id}")).await;
    one.fits("GET", "/api/redis/dead-letters/{id}");
    is_cut(&one.json());
    let listed = get(dashboard.address, AT).await;
    listed.fits("GET", AT);
    is_cut(&listed.json()["items"][0]);
    let whole = get(dashboard.address, "/api/dead-letters/export").await;
    assert_eq!(whole.json()["data"].as_str().unwrap().len(), data.len());
    assert_eq!(whole.json().get("cutOf"), None);

    let small = bury(&dashboard, &client, "account", "9-1").await;
    let mut statuses = Vec::new();
    for _ in 0..200 {
        let answer = get(dashboard.address, &format!("{AT}/{small}")).await;
        statuses.push(answer.status);
        if answer.status == 429 {
            assert_eq!(answer.problem(), 429);
            break;
        }
        assert_eq!(answer.json().get("cutOf"), None);
    }
    // As many at once as a second, and on a slow machine some more meanwhile.
    assert!(statuses.len() > 10 && statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
}
