//! Rows of `users`: stubs, and what comes back after the AppView pruned it.

use super::*;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";

fn profile(record: Value) -> Op {
    put("app.bsky.actor.profile/self", record)
}

fn points_at(path: &str, subject: &str) -> Op {
    put(path, json!({"subject": subject, "list": "at://did:plc:a/app.bsky.graph.list/l", "createdAt": TEXT}))
}

/// Returns the handles of all users, by DID.
async fn handles(db: &Db) -> Vec<(String, String)> {
    let rows = db.rows("SELECT did, handle FROM users ORDER BY did").await;
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(row, "did"), text(row, "handle"))).collect()
}

/// Returns all that a row says but when it was made.
async fn user(db: &Db, did: &str) -> Value {
    let made = "CASE WHEN created_at = indexed_at THEN NULL ELSE created_at END";
    let sql = format!(
        "SELECT to_jsonb(t) - ARRAY['indexed_at'] || jsonb_build_object('created_at', {made}) AS row FROM users AS t \
         WHERE did = '{did}'"
    );
    db.rows(&sql).await.first_mut().map(|row| row["row"].take()).unwrap_or_default()
}

async fn searchable() -> Db {
    Db::with(|settings| settings.search_vector = true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_follow_a_block_or_a_list_item_points_at_gets_a_stub() {
    let ops = vec![
        points_at("app.bsky.graph.follow/f", "did:plc:followed"),
        points_at("app.bsky.graph.block/b", "did:plc:blocked"),
        points_at("app.bsky.graph.listitem/i", "did:plc:listed"),
        points_at("app.bsky.graph.follow/x", "someone.example"),
        points_at("app.bsky.graph.verification/v", "did:plc:verified"),
        delete("app.bsky.graph.follow/d"),
    ];
    let other = live(2, B, vec![points_at("app.bsky.graph.listitem/i", "did:plc:listed-by-another")]);
    let gone = live(3, A, vec![delete("app.bsky.graph.follow/f")]);
    let entries = [live(1, A, ops), other, gone];
    for turned in [false, true] {
        let db = Db::new().await;
        let mut entries = entries.to_vec();
        if turned {
            entries.reverse();
        }
        db.apply_each(&entries).await;
        db.apply(&entries).await;
        let dids: Vec<_> = handles(&db).await.into_iter().map(|(did, _)| did).collect();
        let subjects = ["did:plc:blocked", "did:plc:followed", "did:plc:listed", "did:plc:listed-by-another"];
        assert_eq!(dids, [&[A, B], &subjects[..]].concat(), "{turned}");
        assert_eq!(db.totals().await["users"], 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_pruned_comes_back_as_it_was() {
    let db = searchable().await;
    let record = json!({
        "displayName": "Ada", "description": "flying kites", "createdAt": "2024-01-02T03:04:05.678Z",
        "avatar": {"ref": {"$link": "bafyavatar"}}, "banner": {"ref": {"$link": "bafybanner"}},
        "pinnedPost": {"uri": "at://did:plc:a/app.bsky.feed.post/p", "cid": "c"},
    });
    db.apply(&[live(1, A, vec![profile(record)]), identity(2, A, Some("ada.example"))]).await;
    let before = user(&db, A).await;
    assert_eq!((&before["handle"], &before["avatar_url"]), (&json!("ada.example"), &json!("bafyavatar")));
    assert!(before["search_vector"].as_str().unwrap().contains("kite"), "{before}");
    for entry in [
        live(3, A, vec![like("l", &post_uri(B, "p"))]),
        identity(4, A, None),
        account(5, A, true, None),
        live(6, B, vec![points_at("app.bsky.graph.follow/f", A)]),
        live(7, B, vec![points_at("app.bsky.graph.block/f", A)]),
    ] {
        db.execute("DELETE FROM users").await;
        db.apply(&[entry]).await;
        assert_eq!(user(&db, A).await, before);
    }
    assert_eq!(db.totals().await["users"], 1 + 5 + 2, "what was made is counted, whoever prunes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pruned_row_takes_what_its_next_event_says() {
    let db = searchable().await;
    db.apply(&[live(1, A, vec![profile(json!({"displayName": "Ada"}))]), identity(2, A, Some("ada.example"))]).await;
    db.execute("DELETE FROM users").await;
    db.apply(&[identity(3, A, Some("new.example"))]).await;
    assert_eq!(user(&db, A).await["display_name"], "Ada");
    db.execute("DELETE FROM users").await;
    db.apply(&[live(4, A, vec![profile(json!({"displayName": "Eve"}))])]).await;
    let row = user(&db, A).await;
    assert_eq!((&row["handle"], &row["display_name"]), (&json!("new.example"), &json!("Eve")));
    assert_eq!(row["created_at"], Value::Null);
    db.execute("DELETE FROM users").await;
    db.apply(&[live(5, A, vec![delete("app.bsky.actor.profile/self")])]).await;
    db.execute("DELETE FROM users").await;
    db.apply(&[live(6, A, vec![])]).await;
    let row = user(&db, A).await;
    assert_eq!((&row["handle"], &row["profile_record"]), (&json!("new.example"), &Value::Null));
    assert_eq!(row["search_vector"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_deleted_account_comes_back_bare() {
    let db = Db::new().await;
    db.apply(&[live(1, A, vec![profile(json!({"displayName": "Ada"}))]), identity(2, A, Some("ada.example"))]).await;
    db.apply(&[deleted(5, A)]).await;
    db.execute("DELETE FROM users").await;
    db.sweep().await;
    assert_eq!(db.rows("SELECT did FROM penstock.profiles").await.len(), 0);
    assert_eq!(user(&db, A).await, Value::Null, "a sweep sees nobody");
    db.apply(&[live(6, B, vec![points_at("app.bsky.graph.follow/f", A)])]).await;
    let row = user(&db, A).await;
    assert_eq!((&row["handle"], &row["display_name"]), (&json!("ada.example"), &Value::Null));
    // A profile that came after the deletion is not swept with it.
    db.apply(&[live(7, A, vec![profile(json!({"displayName": "Eve"}))]), deleted(6, A)]).await;
    db.sweep().await;
    db.execute("DELETE FROM users").await;
    db.apply(&[live(8, A, vec![])]).await;
    assert_eq!(user(&db, A).await["display_name"], "Eve");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_leaves_the_profile_that_somebody_else_wrote_also_after_a_pruning() {
    let db = Db::new().await;
    db.execute(
        "INSERT INTO users (did, handle, display_name, profile_record, created_at)
         VALUES ('did:plc:a', 'theirs.example', 'Theirs', '{\"displayName\": \"Theirs\"}', '2020-01-01')",
    )
    .await;
    let before = user(&db, A).await;
    db.apply(&[fill(1, A, vec![profile(json!({"displayName": "Filled"}))])]).await;
    assert_eq!(user(&db, A).await, before);
    db.execute("DELETE FROM users").await;
    db.apply(&[live(2, A, vec![])]).await;
    let row = user(&db, A).await;
    assert_eq!((&row["display_name"], &row["created_at"]), (&before["display_name"], &before["created_at"]));
    db.apply(&[fill(3, B, vec![profile(json!({"displayName": "Filled"}))])]).await;
    assert_eq!(user(&db, B).await["display_name"], "Filled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_appview_knows_of_accounts_is_copied_once_and_survives_its_pruning() {
    let db = Db::new().await;
    db.execute(
        "INSERT INTO users (did, handle, display_name, profile_record, created_at)
         SELECT 'did:plc:' || n, CASE WHEN n % 3 = 0 THEN 'handle.invalid' ELSE 'h' || n || '.example' END,
           CASE WHEN n % 2 = 0 THEN 'N' || n END, CASE WHEN n % 2 = 0 THEN jsonb_build_object('displayName', 'N' || n) END,
           '2020-01-01' FROM generate_series(1, 4100) AS n",
    )
    .await;
    // It was interrupted after a piece that ended here.
    db.execute(
        "UPDATE penstock.meta SET value = 'did:plc:10' WHERE key = 'profiles';
         INSERT INTO penstock.repos (did, handle) VALUES ('did:plc:4', 'known.example')",
    )
    .await;
    schema::migrate(&db.url, false).await.unwrap();
    let copied = db.rows("SELECT did FROM penstock.profiles WHERE did <= 'did:plc:10'").await.len();
    assert_eq!(copied, 0, "what was copied before is not copied again");
    assert_eq!(db.rows("SELECT did FROM penstock.profiles").await.len(), 2050 - 1);
    db.execute("INSERT INTO users (did, handle, profile_record) VALUES ('did:plc:z', 'z.example', '{}')").await;
    schema::migrate(&db.url, false).await.unwrap();
    assert_eq!(db.rows("SELECT did FROM penstock.profiles WHERE did = 'did:plc:z'").await.len(), 0, "it is done");

    db.execute("DELETE FROM users").await;
    let dids = ["did:plc:2", "did:plc:3", "did:plc:4", "did:plc:6"];
    db.apply(&dids.map(|did| live(1, did, vec![]))).await;
    let rows = db.rows("SELECT did, handle, display_name FROM users ORDER BY did").await;
    let known =
        |did: &str, handle: &str, name: Option<&str>| json!({"did": did, "handle": handle, "display_name": name});
    assert_eq!(
        rows,
        [
            known("did:plc:2", "h2.example", Some("N2")),
            known("did:plc:3", "handle.invalid", None),
            known("did:plc:4", "known.example", Some("N4")),
            known("did:plc:6", "handle.invalid", Some("N6")),
        ]
    );
    assert_eq!(user(&db, "did:plc:2").await["created_at"], "2020-01-01T00:00:00");
}
