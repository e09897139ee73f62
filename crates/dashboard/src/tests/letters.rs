//! All dead letters over HTTP, of Redis and PostgreSQL: lists, groups, filters, download, and what is done with many.

use std::collections::BTreeSet;

use fred::clients::Client;
use fred::interfaces::{HashesInterface, StreamsInterface};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};

use super::client::{Answer, administrate, get};
use super::record::migrated;
use super::{Dashboard, until};

const AT: &str = "/api/dead-letters";

/// The data of a commit with one op.
fn commit(number: usize) -> String {
    format!(
        r#"{{"repo":"did:plc:r{}","ops":[{{"action":"create","path":"app.bsky.feed.post/k{number}","record":{{"n":{number}}}}}]}}"#,
        number % 3
    )
}

/// Adds a letter as a worker does, to Redis or not, and to PostgreSQL.
async fn bury(dashboard: &Dashboard, client: &Client, conn: &mut PgConnection, number: usize, in_redis: bool) {
    let error = if number.is_multiple_of(2) {
        format!("op {number}: uri is longer than 512 bytes")
    } else {
        format!("record app.bsky.feed.post/k{number} is a list")
    };
    let orig = orig_id(number);
    let data = commit(number);
    sqlx::query(
        "INSERT INTO penstock.dead_letters (orig_id, kind, data, seq, deliveries, error, consumer, created_at)
         VALUES ($1, 'commit', $2, $3, 2, $4, 'w-0', now() - interval '1 minute' + $5 * interval '1 second')
         ON CONFLICT (orig_id) DO UPDATE SET settled_at = NULL",
    )
    .bind(&orig)
    .bind(data.as_bytes())
    .bind(number.to_string())
    .bind(&error)
    .bind(number as i32)
    .execute(conn)
    .await
    .unwrap();
    if in_redis {
        let seq = number.to_string();
        let fields = vec![
            ("type", "commit"),
            ("data", &data),
            ("seq", &seq),
            ("origId", &orig),
            ("deliveries", "2"),
            ("error", &error),
            ("consumer", "w-0"),
        ];
        let _: String = client.xadd(dashboard.keys().dead_letters(), false, None, "*", fields).await.unwrap();
    }
}

fn orig_id(number: usize) -> String {
    format!("1700000000000-{number}")
}

/// The numbers of the letters in an answer.
fn numbers(answer: &Answer) -> Vec<usize> {
    let items = answer.json()["items"].take();
    items.as_array().unwrap().iter().map(|item| item["seq"].as_str().unwrap().parse().unwrap()).collect()
}

async fn settled(conn: &mut PgConnection) -> BTreeSet<String> {
    let rows = sqlx::query("SELECT seq FROM penstock.dead_letters WHERE settled_at IS NOT NULL").fetch_all(conn).await;
    rows.unwrap().iter().map(|row| row.get("seq")).collect()
}

/// Six letters that are in both places, and six that only PostgreSQL has.
async fn twelve() -> (Dashboard, penstock_local::testing::TestRedis, Client, PgConnection) {
    let (url, mut conn) = migrated().await;
    let (dashboard, redis, client) = Dashboard::with_redis(&[("postgres.url", &url)]).await;
    for number in 0..12 {
        bury(&dashboard, &client, &mut conn, number, number >= 6).await;
    }
    (dashboard, redis, client, conn)
}

#[tokio::test]
async fn letters_of_both_places_are_listed_once_and_grouped_by_reason() {
    let (dashboard, _redis, _client, _conn) = twelve().await;
    let (mut seen, mut path) = (Vec::new(), format!("{AT}?limit=5"));
    loop {
        let page = get(dashboard.address, &path).await;
        page.fits("GET", AT);
        let json = page.json();
        assert_eq!(
            (&json["total"], &json["complete"], &json["postgres"]),
            (&json!(12), &json!(true), &json!("listed"))
        );
        seen.extend(numbers(&page));
        let Some(cursor) = json["cursor"].as_str() else { break };
        path = format!("{AT}?limit=5&cursor={cursor}");
    }
    assert_eq!(seen, (0..12).rev().collect::<Vec<_>>(), "newest first, each once");

    let one = get(dashboard.address, &format!("{AT}?text=k3")).await.json()["items"][0].take();
    let expected = json!({
        "source": "postgres", "id": orig_id(3), "type": "commit", "error": "record app.bsky.feed.post/k3 is a list",
        "reason": "record … is a list", "repo": "did:plc:r0", "uri": "at://did:plc:r0/app.bsky.feed.post/k3", "seq": "3",
        "origId": orig_id(3), "deliveries": "2", "consumer": "w-0", "bytes": commit(3).len(), "replayable": true,
        "at": one["at"],
    });
    assert_eq!(one, expected);

    let groups = get(dashboard.address, &format!("{AT}/groups")).await;
    groups.fits("GET", "/api/dead-letters/groups");
    let groups = groups.json();
    assert_eq!((&groups["total"], &groups["onlyInPostgres"], &groups["reasons"]), (&json!(12), &json!(6), &json!(2)));
    // As many of each, and the newest of both may be of the same millisecond.
    let mut groups = groups["groups"].as_array().unwrap().clone();
    groups.sort_by_key(|group| group["reason"].to_string());
    assert_eq!(groups.len(), 2);
    for (group, reason) in groups.iter().zip(["op …: uri is longer than … bytes", "record … is a list"]) {
        assert_eq!(
            (&group["reason"], &group["count"], &group["onlyInPostgres"]),
            (&json!(reason), &json!(6), &json!(3))
        );
        assert_eq!(
            (&group["repos"], &group["replayable"], &group["types"]),
            (&json!(3), &json!(6), &json!(["commit"]))
        );
        assert!(group["first"].as_u64() < group["last"].as_u64(), "{group}");
    }
}

#[tokio::test]
async fn filters_and_the_download_say_the_same() {
    let (dashboard, _redis, _client, _conn) = twelve().await;
    for (query, expected) in [
        ("", (0..12).collect::<Vec<_>>()),
        ("type=commit&text=app.bsky", (0..12).collect()),
        ("type=raw", vec![]),
        ("source=postgres", (0..6).collect()),
        ("source=redis", (6..12).collect()),
        ("did=did:plc:r1", vec![1, 4, 7, 10]),
        ("reason=record%20%E2%80%A6%20is%20a%20list", vec![1, 3, 5, 7, 9, 11]),
        ("reason=record%20%E2%80%A6%20is%20a%20list&did=*r1&source=redis", vec![7]),
    ] {
        let listed = get(dashboard.address, &format!("{AT}?{query}")).await;
        let mut seen = numbers(&listed);
        seen.reverse();
        assert_eq!(seen, expected, "{query}");
        let told = get(dashboard.address, &format!("{AT}/export?{query}")).await;
        assert_eq!(told.header("content-type"), "application/x-ndjson");
        let lines: Vec<Value> = told.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let whole: Vec<_> = lines.iter().map(|line| line["data"].as_str().unwrap().to_owned()).collect();
        assert_eq!(whole, expected.iter().rev().map(|number| commit(*number)).collect::<Vec<_>>(), "{query}");
        for (line, item) in lines.iter().zip(listed.json()["items"].as_array().unwrap()) {
            assert_eq!((&line["id"], &line["reason"]), (&item["id"], &item["reason"]));
        }
    }
    for (path, field) in
        [("?source=disk", "source"), ("?limit=0", "limit"), ("?cursor=x", "cursor"), ("/groups?source=x", "source")]
    {
        let refused = get(dashboard.address, &format!("{AT}{path}")).await;
        assert!(refused.problem() == 400 && refused.body.contains(field), "{path}: {}", refused.body);
    }
}

#[tokio::test]
async fn a_letter_that_only_postgres_has_is_read_replayed_and_deleted() {
    let (dashboard, _redis, client, mut conn) = twelve().await;
    let path = |number: usize| format!("{AT}/postgres/{}", orig_id(number));
    let one = get(dashboard.address, &path(2)).await;
    one.fits("GET", "/api/dead-letters/postgres/{id}");
    assert_eq!(
        (&one.json()["data"], &one.json()["uri"]),
        (&json!(commit(2)), &json!("at://did:plc:r2/app.bsky.feed.post/k2"))
    );

    let replayed = administrate(dashboard.address, "POST", &format!("{}/replay", path(2))).await;
    replayed.fits("POST", "/api/dead-letters/postgres/{id}/replay");
    assert_eq!(replayed.json()["replayed"], 1);
    let entries: Vec<(String, Vec<String>)> = client.xrange(dashboard.keys().stream(), "-", "+", None).await.unwrap();
    let (id, fields) = &entries[0];
    assert_eq!(
        fields[..],
        ["type", "commit", "data", &commit(2), "seq", "2", "origId", &orig_id(2)].map(str::to_owned)
    );
    // What is on its way holds the traces of deletes.
    let held: Vec<String> =
        client.hmget(dashboard.keys().dead_letters_held(), vec!["replayed", "replayedOrder"]).await.unwrap();
    assert_eq!(held, [id.clone(), orig_id(2)]);
    assert_eq!(settled(&mut conn).await, BTreeSet::from(["2".to_owned()]));
    assert!(!numbers(&get(dashboard.address, AT).await).contains(&2));

    // It fails again: a worker writes it anew.
    bury(&dashboard, &client, &mut conn, 2, false).await;
    administrate(dashboard.address, "DELETE", &path(3)).await.fits("DELETE", "/api/dead-letters/postgres/{id}");
    let listed = numbers(&get(dashboard.address, AT).await);
    assert!(listed.contains(&2) && !listed.contains(&3), "{listed:?}");
    assert_eq!(administrate(dashboard.address, "DELETE", &path(3)).await.problem(), 404);
    assert_eq!(administrate(dashboard.address, "POST", &format!("{}/replay", path(3))).await.problem(), 404);

    // Older than the traces of deletes that are kept.
    let () = client.hset(dashboard.keys().dead_letters_held(), ("below", orig_id(5))).await.unwrap();
    assert_eq!(administrate(dashboard.address, "POST", &format!("{}/replay", path(4))).await.problem(), 410);
    assert_eq!(administrate(dashboard.address, "POST", &format!("{}/replay", path(5))).await.status, 200);
    sqlx::query("UPDATE penstock.dead_letters SET kind = 'raw' WHERE seq = '1'").execute(&mut conn).await.unwrap();
    assert_eq!(administrate(dashboard.address, "POST", &format!("{}/replay", path(1))).await.problem(), 409);
}

#[tokio::test]
async fn all_that_match_are_replayed_or_deleted_and_nothing_without_a_word() {
    let (dashboard, _redis, client, mut conn) = twelve().await;
    for (method, path) in [("POST", "/replay"), ("DELETE", ""), ("DELETE", "?all=yes"), ("DELETE", "?reason=")] {
        assert_eq!(
            administrate(dashboard.address, method, &format!("{AT}{path}")).await.problem(),
            400,
            "{method} {path}"
        );
    }
    let replayed = administrate(dashboard.address, "POST", &format!("{AT}/replay?did=did:plc:r1")).await;
    replayed.fits("POST", "/api/dead-letters/replay");
    let expected = json!({"success": true, "replayed": 4, "left": 0, "refused": 0, "deleted": 0, "more": false});
    assert_eq!(replayed.json(), expected);
    let entries: Vec<(String, Vec<String>)> = client.xrange(dashboard.keys().stream(), "-", "+", None).await.unwrap();
    let seqs: Vec<_> = entries.iter().map(|(_, fields)| fields[5].as_str()).collect();
    assert_eq!(seqs, ["1", "4", "7", "10"], "oldest first");
    let marked = ["1", "4", "7", "10"].map(str::to_owned);
    assert_eq!(settled(&mut conn).await, BTreeSet::from(marked));

    let deleted = administrate(dashboard.address, "DELETE", &format!("{AT}?did=did:plc:r2")).await;
    deleted.fits("DELETE", AT);
    assert_eq!(deleted.json()["deleted"], 4);
    let left: Vec<_> = numbers(&get(dashboard.address, AT).await);
    assert_eq!(left, [9, 6, 3, 0]);
    assert_eq!(administrate(dashboard.address, "DELETE", &format!("{AT}?all=true")).await.json()["deleted"], 4);
    assert_eq!(get(dashboard.address, AT).await.json()["total"], 0);
}

#[tokio::test]
async fn what_is_done_with_letters_of_redis_is_noted_in_postgres() {
    let (dashboard, _redis, client, mut conn) = twelve().await;
    let page = get(dashboard.address, &format!("{AT}?source=redis")).await.json();
    let id = |at: usize| page["items"][at]["id"].as_str().unwrap().to_owned();
    let redis = "/api/redis/dead-letters";
    administrate(dashboard.address, "POST", &format!("{redis}/{}/replay", id(0))).await;
    administrate(dashboard.address, "DELETE", &format!("{redis}/{}", id(1))).await;
    assert_eq!(settled(&mut conn).await, BTreeSet::from(["10", "11"].map(str::to_owned)));
    administrate(dashboard.address, "POST", &format!("{redis}/replay")).await;
    assert_eq!(numbers(&get(dashboard.address, AT).await), [5, 4, 3, 2, 1, 0]);
    // A frame of ingest never was in the stream: it is told by what it says.
    let frame = super::dead_letters::set_aside(&dashboard, &client, "raw", "").await;
    sqlx::query(
        "INSERT INTO penstock.dead_letters (orig_id, kind, data, seq, deliveries, error, consumer)
         SELECT 'raw:' || n, 'raw', $1, '', 1, 'a bound' || CASE n WHEN 1 THEN '' ELSE ', another' END, 'ingest-a'
           FROM generate_series(1, 2) AS n",
    )
    .bind(r#"{"did":"did:plc:ä","active":true,"status":null,"time":"2026-07-04T14:38:08.999Z"}"#.as_bytes())
    .execute(&mut conn)
    .await
    .unwrap();
    until("the new letters are seen", async || {
        get(dashboard.address, &format!("{AT}?type=raw")).await.json()["total"] == 2
    })
    .await;
    administrate(dashboard.address, "DELETE", &format!("{redis}/{frame}")).await;
    let raw = get(dashboard.address, &format!("{AT}?type=raw")).await.json();
    assert_eq!((&raw["total"], &raw["items"][0]["id"]), (&json!(1), &json!("raw:2")), "{raw}");
    super::dead_letters::set_aside(&dashboard, &client, "raw", "").await;
    administrate(dashboard.address, "DELETE", redis).await;
    assert_eq!(get(dashboard.address, AT).await.json()["total"], 7);
}

#[tokio::test]
async fn thousands_are_told_quickly_and_what_changes_is_seen() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let total = async || get(dashboard.address, &format!("{AT}/groups")).await.json()["total"].as_u64();
    assert_eq!(total().await, Some(0));
    let add = async |numbers: std::ops::Range<usize>| {
        let batch = client.pipeline();
        for number in numbers {
            let error = format!("op {number}: too long");
            let fields = vec![("type", "commit".to_owned()), ("data", commit(number)), ("error", error)];
            let () = batch.xadd(dashboard.keys().dead_letters(), false, None, "*", fields).await.unwrap();
        }
        let ids: Vec<String> = batch.all().await.unwrap();
        ids
    };
    let ids = add(0..4000).await;
    until("all are told", async || total().await == Some(4000)).await;
    let groups = get(dashboard.address, &format!("{AT}/groups")).await.json();
    assert_eq!((&groups["reasons"], &groups["postgres"]), (&json!(1), &json!("notUsed")));
    add(4000..4010).await;
    let _: u64 = client.xdel(dashboard.keys().dead_letters(), ids[..20].to_vec()).await.unwrap();
    until("what went and came is seen", async || total().await == Some(3990)).await;
    let page = get(dashboard.address, &format!("{AT}?limit=1000")).await.json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["total"]), (1000, &json!(3990)));
}

#[tokio::test]
async fn without_postgres_those_of_redis_are_listed_and_it_is_said() {
    let nobody = [("postgres.url", "postgres://nobody@127.0.0.1:1/none")];
    let (dashboard, _redis, client) = Dashboard::with_redis(&nobody).await;
    super::dead_letters::bury(&dashboard, &client, "account", "1700000000000-1").await;
    let listed = get(dashboard.address, AT).await;
    listed.fits("GET", AT);
    assert_eq!((&listed.json()["total"], &listed.json()["postgres"]), (&json!(1), &json!("unavailable")));
    let replayed = administrate(dashboard.address, "POST", &format!("{AT}/replay?type=account")).await;
    assert_eq!(replayed.json()["replayed"], 1, "{}", replayed.body);
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/replay")] {
        let away = administrate(dashboard.address, method, &format!("{AT}/postgres/1-1{path}")).await;
        assert!(away.problem() == 503 && away.body.contains("postgres does not answer"), "{method}: {}", away.body);
    }
}

#[tokio::test]
async fn a_huge_letter_that_only_postgres_has_is_shown_cut() {
    let (database, mut conn) = migrated().await;
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("postgres.url", &database)]).await;
    let data = format!("\"{}\"", "ä".repeat(1_000_000));
    for (id, data) in [("7-1", data.as_str()), ("7-2", "{}")] {
        let insert =
            "INSERT INTO penstock.dead_letters (orig_id, kind, data, seq, deliveries, error, consumer, created_at)
            VALUES ($1, 'commit', $2, '7', 2, 'too large', 'w-0', now())";
        sqlx::query(insert).bind(id).bind(data.as_bytes()).execute(&mut conn).await.unwrap();
    }
    let one = get(dashboard.address, &format!("{AT}/postgres/7-1")).await;
    one.fits("GET", "/api/dead-letters/postgres/{id}");
    let letter = one.json();
    assert_eq!((&letter["cutOf"], &letter["bytes"]), (&json!(data.len()), &json!(data.len())));
    let shown = letter["data"].as_str().unwrap();
    assert!(shown.len().abs_diff(512 * 1024) < 4 && data.starts_with(shown), "{} bytes", shown.len());
    assert_eq!(get(dashboard.address, &format!("{AT}/postgres/7-2")).await.json().get("cutOf"), None);
}
