//! A session keeps the plans that it made while the tables were empty, for as long as it lives. So none of them may
//! read a table from end to end.

use sqlx::Row;

use super::*;
use crate::store::Checked;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";

/// One record of each kind, and those that want the same places.
fn records(repo: &str, other: &str, text: &str) -> Vec<Op> {
    let post = |rkey: &str| post_uri(other, rkey);
    let list = format!("at://{repo}/app.bsky.graph.list/l");
    let subject = |uri: String| json!({"uri": uri, "cid": "c"});
    let mut ops = vec![
        put("app.bsky.actor.profile/self", json!({"displayName": text, "pinnedPost": subject(post("p"))})),
        put("app.bsky.feed.post/p", json!({"text": text, "createdAt": TEXT})),
        put(
            "app.bsky.feed.post/r",
            json!({
                "text": text, "createdAt": TEXT, "reply": {"root": subject(post("p")), "parent": subject(post("p"))},
                "embed": {"$type": "app.bsky.embed.record", "record": subject(post("p"))},
                "facets": [{"features": [{"$type": "app.bsky.richtext.facet#mention", "did": other}]}],
            }),
        ),
        put("app.bsky.feed.threadgate/p", json!({"post": post_uri(repo, "p"), "allow": [], "createdAt": TEXT})),
        put("app.bsky.feed.postgate/p", json!({"post": post_uri(repo, "p"), "createdAt": TEXT})),
        put("app.bsky.feed.generator/g", json!({"did": repo, "displayName": text, "createdAt": TEXT})),
        put(
            "app.bsky.graph.list/l",
            json!({"name": text, "purpose": "app.bsky.graph.defs#modlist", "createdAt": TEXT}),
        ),
        put("app.bsky.graph.listitem/i", json!({"list": list, "subject": other, "createdAt": TEXT})),
        put("app.bsky.graph.listblock/b", json!({"subject": list, "createdAt": TEXT})),
        put("app.bsky.graph.starterpack/s", json!({"name": text, "list": list, "createdAt": TEXT})),
        put("app.bsky.graph.verification/v", json!({"subject": other, "handle": "b.test", "createdAt": TEXT})),
        put("app.bsky.labeler.service/self", json!({"policies": {"labelValues": [text]}, "createdAt": TEXT})),
        put("com.atproto.label.label/l", json!({"src": repo, "uri": post("p"), "val": text, "cts": TEXT})),
        put("com.example.record/x", json!({"text": text})),
    ];
    for rkey in ["1", "2"] {
        ops.extend([
            like(rkey, &post("p")),
            repost(rkey, &post("p")),
            put(&format!("app.bsky.bookmark/{rkey}"), json!({"subject": subject(post("p")), "createdAt": TEXT})),
            put(&format!("app.bsky.graph.follow/{rkey}"), json!({"subject": other, "createdAt": TEXT})),
            put(&format!("app.bsky.graph.block/{rkey}"), json!({"subject": other, "createdAt": TEXT})),
        ]);
    }
    ops
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_on_empty_tables_reads_no_table_from_end_to_end() {
    let db = Db::with(|settings| settings.pool_size = 1).await;
    // The second time they say something else, the third time they are gone.
    for (at, text) in [(10, "one"), (20, "two")] {
        db.apply(&[live(at, A, records(A, B, text)), live(at + 1, B, records(B, A, text))]).await;
        db.apply(&[identity(at + 2, A, Some("a.test"))]).await;
    }
    let gone = |op: &Op| delete(&format!("{}/{}", op.collection, op.rkey));
    db.apply(&[live(30, A, records(A, B, "").iter().map(gone).collect())]).await;
    db.apply(&[deleted(31, B)]).await;
    db.sweep().await;
    assert!(read_no_table_whole(&db).await > 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_checks_that_are_due_are_found_by_an_index() {
    let db = Db::with(|settings| {
        settings.pool_size = 1;
        settings.asks_hosts = true;
    })
    .await;
    for order in [1, 11] {
        db.apply(&[account(order, A, true, None), identity(order, A, None), deleted(order + 1, A), deleted(order, B)])
            .await;
        for _ in 0..2 {
            for claim in db.store.take_claims(10, 10, &["https://b.test".to_owned()]).await.unwrap() {
                let host =
                    if claim.host.is_empty() { HostAnswer::At("https://a.test".to_owned()) } else { HostAnswer::Gone };
                db.store.settle_claim(&claim, &host).await.unwrap();
            }
        }
        for check in db.store.take_handle_checks(10).await.unwrap() {
            db.store.settle_handle_check(&check, &Checked::Valid("a.test".to_owned())).await.unwrap();
        }
    }
    assert!(read_no_table_whole(&db).await > 20);
}

/// Looks at the plans of all statements that a session prepared; returns how many those are.
async fn read_no_table_whole(db: &Db) -> usize {
    let mut conn = db.store.pool().acquire().await.unwrap();
    let mut conn = db.store.head.begin(&mut conn).await.unwrap();
    let prepared = "SELECT name, statement, cardinality(parameter_types) FROM pg_prepared_statements";
    let prepared: Vec<(String, String, i32)> = sqlx::query_as(prepared).fetch_all(&mut *conn).await.unwrap();
    let statements = prepared.len();
    let mut faults = Vec::new();
    for (name, statement, parameters) in prepared {
        let nulls = vec!["NULL"; usize::try_from(parameters).unwrap()].join(", ");
        let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE {name}{nulls}"));
        let plan: Vec<String> =
            sqlx::raw_sql(explain).fetch_all(&mut *conn).await.unwrap().iter().map(|row| row.get(0)).collect();
        // By a key each time: a scan without a condition reads all of an index.
        let has_condition = |at: usize| plan.get(at + 1).is_some_and(|line| line.contains("Index Cond"));
        let whole = plan.iter().enumerate().filter(|(at, line)| {
            let by_index = ["Index Scan", "Index Only Scan"].iter().any(|scan| line.contains(scan));
            line.contains("Seq Scan") && !line.contains(" on pg_") || by_index && !has_condition(*at)
        });
        let whole: Vec<&str> = whole.map(|(_, line)| line.trim()).collect();
        if !whole.is_empty() && !takes_the_first(&statement) {
            faults.push(format!("{statement}\n{}", whole.join("\n")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    statements
}

/// Returns whether a statement wants but the first of an index of what is due.
fn takes_the_first(statement: &str) -> bool {
    statement.ends_with("LIMIT 1") || statement == "SELECT EXISTS (SELECT FROM penstock.sweeps)"
}
