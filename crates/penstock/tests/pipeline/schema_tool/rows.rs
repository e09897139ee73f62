//! Rows in every table: by a worker as far as it writes them, the rest by hand.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use super::catalogue::sizes;
use crate::rig::Rig;

const AUTHOR: &str = "did:plc:author";

/// The tables that a worker fills from the events below.
const WRITTEN: [&str; 21] = [
    "users",
    "posts",
    "post_aggregations",
    "feed_items",
    "quotes",
    "likes",
    "reposts",
    "bookmarks",
    "follows",
    "blocks",
    "lists",
    "list_items",
    "list_blocks",
    "feed_generators",
    "starter_packs",
    "labeler_services",
    "labels",
    "verifications",
    "generic_records",
    "thread_gates",
    "post_gates",
];

/// Has a real worker write records of every collection, some of them deleted again, for the `turn`th time.
pub(crate) async fn write(rig: &Rig, turn: u64) {
    let before = sizes(&rig.pool).await;
    for (number, (kind, data)) in events(turn).into_iter().enumerate() {
        rig.add(kind, &data.to_string(), &(1000 * turn + number as u64).to_string()).await;
    }
    let worker = rig.worker(&format!("w-{turn}"));
    rig.settled().await;
    worker.stop().await;
    assert!(rig.dead_letters().await.is_empty(), "{:?}", rig.dead_letters().await);
    let after = sizes(&rig.pool).await;
    for table in WRITTEN {
        let name = format!("public.{table}");
        assert!(after[&name] > before[&name], "turn {turn} wrote nothing into {table}");
    }
}

fn events(turn: u64) -> Vec<(&'static str, Value)> {
    let author = format!("{AUTHOR}{turn}");
    let at = |collection: &str| format!("at://{author}/{collection}/3m{turn}");
    let strong = json!({"uri": at("app.bsky.feed.post"), "cid": "bafypost"});
    let other = format!("did:plc:other{turn}");
    let now = "2026-07-04T14:38:08.25Z";
    let gone = json!({"createdAt": now, "note": "gone"});
    let records = [
        ("app.bsky.actor.profile", json!({"displayName": "Author", "description": "writes", "pinnedPost": strong})),
        ("app.bsky.feed.post", json!({"text": "Grüße", "langs": ["de"], "tags": ["a"]})),
        (
            "app.bsky.feed.post",
            json!({
                "text": "an answer", "reply": {"root": strong, "parent": strong},
                "embed": {"$type": "app.bsky.embed.record", "record": strong}, "facets": [],
            }),
        ),
        ("app.bsky.feed.like", json!({"subject": strong, "via": strong})),
        ("app.bsky.feed.repost", json!({"subject": strong})),
        ("app.bsky.bookmark", json!({"subject": strong})),
        ("app.bsky.feed.threadgate", json!({"post": at("app.bsky.feed.post"), "allow": []})),
        ("app.bsky.feed.postgate", json!({"post": at("app.bsky.feed.post"), "embeddingRules": []})),
        ("app.bsky.feed.generator", json!({"did": "did:web:feed.example", "displayName": "Feed"})),
        ("app.bsky.graph.follow", json!({"subject": other})),
        ("app.bsky.graph.block", json!({"subject": other})),
        ("app.bsky.graph.list", json!({"name": "List", "purpose": "app.bsky.graph.defs#curatelist"})),
        ("app.bsky.graph.listitem", json!({"list": at("app.bsky.graph.list"), "subject": other})),
        ("app.bsky.graph.listblock", json!({"subject": at("app.bsky.graph.list")})),
        ("app.bsky.graph.starterpack", json!({"name": "Pack", "list": at("app.bsky.graph.list")})),
        ("app.bsky.graph.verification", json!({"subject": other, "handle": "other.example", "displayName": "Other"})),
        ("app.bsky.labeler.service", json!({"policies": {"labelValues": ["spam"]}})),
        ("com.atproto.label.label", json!({"src": author, "uri": other, "val": "spam", "cts": now})),
        ("com.example.note", json!({"note": turn})),
        ("com.example.gone", gone.clone()),
    ];
    let ops: Vec<_> = records
        .into_iter()
        .enumerate()
        .map(|(number, (collection, mut record))| {
            record["$type"] = collection.into();
            record["createdAt"] = now.into();
            let rkey = match (collection, number) {
                ("app.bsky.actor.profile", _) => "self".to_owned(),
                // The answer.
                (_, 2) => format!("3m{turn}answer"),
                _ => format!("3m{turn}"),
            };
            json!({"action": "create", "path": format!("{collection}/{rkey}"), "cid": "bafypost", "record": record})
        })
        .collect();
    let commit = |rev: &str, ops: Value| json!({"repo": author, "ops": ops, "rev": format!("3mrev{turn}{rev}"), "time": now, "commit": "bafycommit", "since": null});
    let delete = json!([{"action": "delete", "path": format!("com.example.gone/3m{turn}")}]);
    let again = json!([{
        "action": "create", "path": format!("app.bsky.feed.like/3m{turn}again"), "cid": "bafypost",
        "record": {"$type": "app.bsky.feed.like", "createdAt": now, "subject": strong},
    }]);
    vec![
        ("identity", json!({"did": author, "handle": "author.example", "time": now})),
        ("account", json!({"did": author, "active": false, "status": "deactivated", "time": now})),
        ("commit", commit("2222", ops.into())),
        // A tombstone, and a like that another one stands before.
        ("commit", commit("2223", delete)),
        ("commit", commit("2224", again)),
    ]
}

const COLUMNS: &str = "\
SELECT format('%I.%I', n.nspname, c.relname), string_agg(quote_ident(a.attname), ', '),
    string_agg(CASE format_type(a.atttypid, NULL)
      WHEN 'text' THEN '''1782000000000-000003''' WHEN 'character varying' THEN '''x''' WHEN 'integer' THEN '0'
      WHEN 'bigint' THEN '0' WHEN 'smallint' THEN '0' WHEN 'double precision' THEN '0' WHEN 'boolean' THEN 'false'
      WHEN 'jsonb' THEN '''{}''' WHEN 'bytea' THEN '''x''' WHEN 'tsvector' THEN '''x''' WHEN 'text[]' THEN '''{x}'''
      WHEN 'timestamp without time zone' THEN 'now()' WHEN 'timestamp with time zone' THEN 'now()'
      ELSE format('a value of %s, please', format_type(a.atttypid, NULL)) END, ', ')
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = $1
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 WHERE c.relkind = 'r' AND c.relname NOT LIKE '%migrations' GROUP BY 1";

/// Puts a row into each table of a schema in which no column is empty.
pub(crate) async fn fill_all(pool: &PgPool, schema: &str) {
    let tables: Vec<(String, String, String)> = sqlx::query_as(COLUMNS).bind(schema).fetch_all(pool).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    // Whatever refers to whatever.
    sqlx::query("SET LOCAL session_replication_role = replica").execute(&mut *tx).await.unwrap();
    for (table, columns, values) in tables {
        let insert = format!("INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING");
        sqlx::query(AssertSqlSafe(insert)).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// Puts such a row into each table of both sides.
pub(crate) async fn fill(pool: &PgPool) {
    fill_all(pool, "penstock").await;
    fill_all(pool, "public").await;
    let empty: Vec<_> = sizes(pool).await.into_iter().filter(|(_, rows)| *rows == 0).collect();
    assert!(empty.is_empty(), "an empty table shows little: {empty:?}");
}
