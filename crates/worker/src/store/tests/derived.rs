//! What follows from records: rules one by one. The properties show that they hold in any order.

mod races;

use penstock_core::settings::{Projection, Projections};

use super::*;
use crate::store::schema::SchemaError;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";
const C: &str = "did:plc:c";

fn reply(rkey: &str, parent: &str, root: &str) -> Op {
    let reply = json!({"parent": {"uri": parent, "cid": "p"}, "root": {"uri": root, "cid": "r"}});
    put(&format!("app.bsky.feed.post/{rkey}"), json!({"text": "r", "reply": reply, "createdAt": TEXT}))
}

fn quote(rkey: &str, quoted: &str) -> Op {
    let embed = json!({"$type": "app.bsky.embed.record", "record": {"uri": quoted, "cid": "q"}});
    put(&format!("app.bsky.feed.post/{rkey}"), json!({"text": "q", "embed": embed, "createdAt": TEXT}))
}

fn mention(rkey: &str, dids: &[&str]) -> Op {
    let feature = |did: &&str| json!({"$type": "app.bsky.richtext.facet#mention", "did": did});
    let facets = json!([{"features": dids.iter().map(feature).collect::<Vec<_>>()}]);
    put(&format!("app.bsky.feed.post/{rkey}"), json!({"text": "m", "facets": facets, "createdAt": TEXT}))
}

fn follow(rkey: &str, did: &str) -> Op {
    put(&format!("app.bsky.graph.follow/{rkey}"), json!({"subject": did, "createdAt": TEXT}))
}

fn label(rkey: &str) -> Op {
    put(&format!("com.atproto.label.label/{rkey}"), json!({"uri": A, "val": "spam", "cts": TEXT}))
}

/// Recipient, author, reason and subject of each notification, by its URI.
async fn told(db: &Db) -> Vec<(String, String, String, String, Option<String>)> {
    let sql =
        "SELECT uri, recipient_did, author_did, reason, reason_subject FROM notifications ORDER BY uri COLLATE \"C\"";
    sqlx::query_as(sql).fetch_all(db.store.pool()).await.unwrap()
}

async fn told_uris(db: &Db) -> Vec<String> {
    told(db).await.into_iter().map(|(uri, ..)| uri).collect()
}

fn notification(
    uri: &str,
    to: &str,
    by: &str,
    reason: &str,
    of: Option<&str>,
) -> (String, String, String, String, Option<String>) {
    (uri.to_owned(), to.to_owned(), by.to_owned(), reason.to_owned(), of.map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_notifies_once_as_the_appview_names_it() {
    let db = Db::new().await;
    let (p, r) = (post_uri(A, "p"), post_uri(B, "r"));
    db.apply(&[live(1, A, vec![post("p", "x")]), live(2, C, vec![])]).await;
    let causes = [
        live(3, B, vec![like("l", &p), repost("s", &p), follow("f", A), reply("r", &p, &p)]),
        live(4, C, vec![quote("q", &p), mention("m", &[A, B, A, C])]),
    ];
    for _ in 0..2 {
        db.apply_each(&causes).await;
        let q = post_uri(C, "q");
        let m = post_uri(C, "m");
        assert_eq!(
            told(&db).await,
            [
                notification(&format!("at://{B}/app.bsky.feed.like/l#notification"), A, B, "like", Some(&p)),
                notification(&format!("{r}#notification/reply"), A, B, "reply", Some(&r)),
                notification(&format!("at://{B}/app.bsky.feed.repost/s#notification"), A, B, "repost", Some(&p)),
                notification(&format!("at://{B}/app.bsky.graph.follow/f#notification"), A, B, "follow", None),
                notification(&format!("{m}#notification/mention/{A}"), A, C, "mention", Some(&m)),
                notification(&format!("{m}#notification/mention/{B}"), B, C, "mention", Some(&m)),
                notification(&format!("{q}#notification/quote"), A, C, "quote", Some(&q)),
            ]
        );
    }
    assert_eq!(db.rows("SELECT FROM notifications WHERE cid IS NULL OR is_read").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_notified_of_what_he_did_himself() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    let ops =
        vec![post("p", "x"), like("l", &p), repost("s", &p), follow("f", A), reply("r", &p, &p), mention("m", &[A])];
    db.apply(&[live(1, A, ops)]).await;
    assert_eq!(told(&db).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_brings_and_takes_the_notifications_of_what_is_about_it() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    db.apply(&[live(1, B, vec![like("l", &p), repost("s", &p), reply("r", &p, &p), quote("q", &p)])]).await;
    assert_eq!(told_uris(&db).await.len(), 0);
    let cids = "SELECT cid FROM notifications WHERE reason = 'like'";
    for order in [2, 4] {
        db.apply(&[live(order, A, vec![post("p", "x")])]).await;
        assert_eq!(told_uris(&db).await.len(), 4);
        // `likes` has no column for the CID.
        assert_eq!(db.rows(cids).await, [json!({"cid": like("l", &p).cid})]);
        db.apply(&[live(order + 1, A, vec![delete("app.bsky.feed.post/p")])]).await;
        assert_eq!(told_uris(&db).await.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_goes_with_its_cause() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    db.apply(&[live(1, A, vec![post("p", "x")]), live(2, C, vec![])]).await;
    let ops =
        vec![like("l", &p), repost("s", &p), follow("f", A), reply("r", &p, &p), quote("q", &p), mention("m", &[A, C])];
    let paths: Vec<String> = ops.iter().map(|op| format!("{}/{}", op.collection, op.rkey)).collect();
    db.apply(&[live(3, B, ops)]).await;
    assert_eq!(told_uris(&db).await.len(), 7);
    db.apply(&[live(4, B, paths.iter().map(|path| delete(path)).collect())]).await;
    assert_eq!(told_uris(&db).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_stays_read_until_it_is_about_something_else() {
    let db = Db::new().await;
    let (p, q) = (post_uri(A, "p"), post_uri(C, "q"));
    db.apply(&[live(1, A, vec![post("p", "x")]), live(2, C, vec![post("q", "x")])]).await;
    let first = live(3, B, vec![like("l", &p), mention("m", &[A])]);
    db.apply(std::slice::from_ref(&first)).await;
    db.execute("UPDATE notifications SET is_read = true").await;
    let ids = db.rows("SELECT uri, id FROM notifications ORDER BY id").await;
    // The same again, and an edit of the post that still names the same account.
    db.apply(&[first, live(4, B, vec![mention("m", &[A, A])])]).await;
    assert_eq!(db.rows("SELECT uri, id FROM notifications WHERE is_read ORDER BY id").await, ids);
    db.apply(&[live(5, B, vec![like("l", &q)])]).await;
    assert_eq!(
        db.rows("SELECT recipient_did, reason_subject, is_read FROM notifications WHERE reason = 'like'").await,
        [json!({"recipient_did": C, "reason_subject": q, "is_read": false})]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_likes_of_one_post_the_visible_one_notifies() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    db.apply(&[live(1, A, vec![post("p", "x")])]).await;
    db.apply_each(&[live(2, B, vec![like("one", &p)]), live(3, B, vec![like("two", &p)])]).await;
    assert_eq!(told_uris(&db).await, [format!("at://{B}/app.bsky.feed.like/two#notification")]);
    db.apply(&[live(4, B, vec![delete("app.bsky.feed.like/two")])]).await;
    assert_eq!(told_uris(&db).await, [format!("at://{B}/app.bsky.feed.like/one#notification")]);
    assert_eq!(db.rows("SELECT FROM notifications WHERE cid IS NULL").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_post_notifies_whom_it_names_now() {
    let db = Db::new().await;
    db.apply(&[live(1, A, vec![mention("m", &[B])])]).await;
    db.apply(&[live(2, A, vec![mention("m", &[C])])]).await;
    assert_eq!(told_uris(&db).await, [format!("{}#notification/mention/{C}", post_uri(A, "m"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_that_does_not_fit_is_counted_and_its_neighbours_stand() {
    let db = Db::new().await;
    let rkey = "k".repeat(440);
    let long = format!("did:web:{}", "d".repeat(100));
    let applied = db.apply(&[live(1, A, vec![mention(&rkey, &[&long, B])])]).await;
    assert_eq!((applied.refused_notifications, applied.rejected.len()), (1, 0));
    assert_eq!(told_uris(&db).await, [format!("{}#notification/mention/{B}", post_uri(A, &rkey))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_takes_its_notifications_along() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    db.apply(&[live(1, A, vec![post("p", "x")]), live(2, B, vec![like("l", &p), mention("m", &[C])])]).await;
    db.apply(&[live(3, C, vec![like("l", &p)])]).await;
    assert_eq!(told_uris(&db).await.len(), 3);
    db.apply(&[deleted(4, B)]).await;
    db.sweep().await;
    assert_eq!(told_uris(&db).await, [format!("at://{C}/app.bsky.feed.like/l#notification")]);
    assert_eq!(db.rows("SELECT viewer_did FROM post_viewer_states").await, [json!({"viewer_did": C})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_from_one_post_is_bounded_and_ends_whole() {
    let db = Db::with(|settings| settings.page = 3).await;
    let p = post_uri(A, "p");
    let dids: Vec<String> = (0..8).map(|n| format!("did:plc:n{n}")).collect();
    for (at, did) in dids.iter().enumerate() {
        db.apply(&[live(1 + at as u64, did, vec![like("l", &p), reply("r", &p, &p)])]).await;
    }
    let contexts = "SELECT FROM thread_contexts";
    let unfinished = "SELECT uri FROM penstock.unfinished_posts";
    db.apply(&[live(20, A, vec![post("p", "x")])]).await;
    assert_eq!((told_uris(&db).await.len(), db.rows(contexts).await.len()), (0, 0), "a step each, later");
    assert_eq!(db.rows(unfinished).await, [json!({ "uri": p })]);
    db.sweep().await;
    assert_eq!((told_uris(&db).await.len(), db.rows(contexts).await.len()), (16, 8));
    db.apply(&[live(21, A, vec![delete("app.bsky.feed.post/p")])]).await;
    assert_eq!((told_uris(&db).await.len(), db.rows(contexts).await.len()), (16, 8));
    let mut left = 24;
    while left > 0 {
        assert!(db.store.sweep_deleted("w1", 2).await.unwrap().more);
        let now = told_uris(&db).await.len() + db.rows(contexts).await.len();
        assert!(now < left && now + 6 >= left, "a step takes three of each: {now} of {left} are left");
        left = now;
    }
    db.sweep().await;
    assert_eq!((told_uris(&db).await.len(), db.rows(contexts).await.len()), (0, 0));
    assert_eq!(db.rows(unfinished).await.len(), 0);
    // The CIDs of all likes wait for the post.
    assert_eq!(db.rows("SELECT uri FROM penstock.waiting_cids").await.len(), 8);
}

/// One account answers itself, and makes and deletes what it answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_with_much_behind_it_that_comes_and_goes_costs_a_batch_no_more_than_another() {
    let db = Db::with(|settings| settings.page = 100).await;
    let p = post_uri(A, "p");
    let replies = (0..4).map(|n| (0..500).map(|m| reply(&format!("r{}", n * 500 + m), &p, &p)).collect());
    for (order, ops) in (1..).zip(replies) {
        db.apply(&[live(order, A, ops)]).await;
    }
    db.apply(&[live(10, A, vec![post("p", "x")])]).await;
    db.sweep().await;
    assert_eq!(db.rows("SELECT FROM thread_contexts").await.len(), 2000);
    let gone = live(11, A, vec![delete("app.bsky.feed.post/p")]);
    let back = live(12, A, vec![post("p", "y")]);
    let read = db.rows_read("posts", async |store| {
        drop(store.apply("w1", &[gone]).await.unwrap());
        drop(store.apply("w1", &[back]).await.unwrap());
    });
    let read = read.await;
    assert!(read < 1000, "{read}");
    db.sweep().await;
    assert_eq!(db.rows("SELECT FROM thread_contexts").await.len(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_context_follows_the_like_of_who_began_the_thread() {
    let db = Db::new().await;
    let (root, answer) = (post_uri(A, "p"), post_uri(B, "r"));
    let context = "SELECT post_uri, root_author_like_uri FROM thread_contexts";
    let says = |like: Option<&str>| {
        let like = like.map(|rkey| format!("at://{A}/app.bsky.feed.like/{rkey}"));
        [json!({"post_uri": answer, "root_author_like_uri": like})]
    };
    db.apply(&[live(1, B, vec![reply("r", &root, &root)])]).await;
    assert_eq!(db.rows(context).await.len(), 0, "its thread has no first post");
    db.apply(&[live(2, A, vec![post("p", "x")])]).await;
    assert_eq!(db.rows(context).await, says(None));
    let updated = "SELECT updated_at FROM thread_contexts";
    let at = db.rows(updated).await;
    db.apply(&[live(3, C, vec![like("l", &answer)]), live(4, B, vec![reply("r", &root, &root)])]).await;
    assert_eq!(db.rows(updated).await, at, "only the author's like moves it");
    db.apply(&[live(5, A, vec![like("l", &answer)])]).await;
    assert_eq!(db.rows(context).await, says(Some("l")));
    db.apply(&[live(6, A, vec![like("m", &answer)])]).await;
    assert_eq!(db.rows(context).await, says(Some("m")));
    db.apply(&[live(7, A, vec![delete("app.bsky.feed.like/m")])]).await;
    assert_eq!(db.rows(context).await, says(Some("l")));
    db.apply(&[live(8, A, vec![delete("app.bsky.feed.like/l")])]).await;
    assert_eq!(db.rows(context).await, says(None));
    db.apply(&[live(9, A, vec![delete("app.bsky.feed.post/p")])]).await;
    assert_eq!(db.rows(context).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_state_says_what_an_account_did_and_keeps_the_flags_of_the_appview() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    let bookmark = put("app.bsky.bookmark/b", json!({"subject": {"uri": p, "cid": "c"}, "createdAt": TEXT}));
    let state = "SELECT like_uri, repost_uri, bookmarked, pinned FROM post_viewer_states";
    let uri = |collection: &str, rkey: &str| format!("at://{B}/app.bsky.feed.{collection}/{rkey}");
    db.apply(&[live(1, B, vec![like("l", &p), repost("s", &p), bookmark])]).await;
    assert_eq!(
        db.rows(state).await,
        [json!({"like_uri": uri("like", "l"), "repost_uri": uri("repost", "s"), "bookmarked": true, "pinned": false})]
    );
    db.execute("UPDATE post_viewer_states SET pinned = true").await;
    let gone = ["app.bsky.feed.repost/s", "app.bsky.bookmark/b"];
    db.apply(&[live(2, B, gone.map(delete).to_vec())]).await;
    assert_eq!(
        db.rows(state).await,
        [json!({"like_uri": uri("like", "l"), "repost_uri": null, "bookmarked": false, "pinned": true})]
    );
    db.apply(&[live(3, B, vec![delete("app.bsky.feed.like/l")])]).await;
    assert_eq!(
        db.rows(state).await,
        [json!({"like_uri": null, "repost_uri": null, "bookmarked": false, "pinned": true})],
        "a flag of the appview keeps it"
    );
    db.execute("UPDATE post_viewer_states SET pinned = false").await;
    db.apply_each(&[live(4, B, vec![like("l", &p)]), live(5, B, vec![delete("app.bsky.feed.like/l")])]).await;
    assert_eq!(db.rows(state).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_tells_once_that_it_came_and_takes_it_along() {
    let db = Db::new().await;
    let entry = live(1, A, vec![label("l")]);
    let events = "SELECT label_uri, action FROM label_events";
    for _ in 0..2 {
        db.apply(std::slice::from_ref(&entry)).await;
        db.apply(&[live(2, A, vec![label("l")])]).await;
        let uri = format!("at://{A}/com.atproto.label.label/l");
        assert_eq!(db.rows(events).await, [json!({"label_uri": uri, "action": "created"})]);
    }
    db.apply(&[live(3, A, vec![delete("com.atproto.label.label/l")])]).await;
    assert_eq!(db.rows(events).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_written_before_its_list() {
    let db = Db::new().await;
    let list = format!("at://{A}/app.bsky.graph.list/l");
    db.apply(&[live(1, A, vec![put("app.bsky.graph.listitem/i", json!({"list": list, "subject": B}))])]).await;
    assert_eq!(db.rows("SELECT list_uri FROM list_items").await, [json!({ "list_uri": list })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_stand_in_the_feed_as_posts() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    db.apply(&[live(1, B, vec![reply("r", &p, &p), repost("s", &p)])]).await;
    assert_eq!(
        db.rows("SELECT post_uri, type FROM feed_items ORDER BY type").await,
        [json!({"post_uri": post_uri(B, "r"), "type": "post"}), json!({"post_uri": p, "type": "repost"})]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_makes_stale_what_the_appview_may_have_cached_of_it() {
    let db = Db::new().await;
    let (root, answer) = (post_uri(A, "p"), post_uri(B, "r"));
    let keys = |keys: &[String]| {
        keys.iter().map(|key| format!("atproto:cache:{key}")).collect::<std::collections::BTreeSet<_>>()
    };
    let of = |table: &str, what: &str| format!("{table}:{what}");
    let first = live(1, A, vec![post("p", "x")]);
    assert_eq!(db.apply(&[first]).await.stale, keys(&[of("post_aggregations", &root)]));
    let reply = live(2, B, vec![reply("r", &root, &root)]);
    let made = [of("post_aggregations", &root), of("post_aggregations", &answer), of("thread_contexts", &answer)];
    assert_eq!(db.apply(&[reply]).await.stale, keys(&made));
    let likes = live(3, A, vec![like("l", &answer)]);
    let counted = [of("post_aggregations", &answer), of("post_viewer_states", &format!("{A}:{answer}"))];
    let liked = [&counted[..], &[of("thread_contexts", &answer)]].concat();
    assert_eq!(db.apply(std::slice::from_ref(&likes)).await.stale, keys(&liked));
    // Whoever applied it may have ended before it said so.
    assert_eq!(db.apply(&[likes]).await.stale, keys(&counted));
    let unlikes = live(4, A, vec![delete("app.bsky.feed.like/l")]);
    assert_eq!(db.apply(&[unlikes]).await.stale, keys(&liked));
    db.apply_each(&[live(5, C, vec![like("l", &answer)]), deleted(6, C)]).await;
    let swept = db.store.sweep_deleted("w1", 10).await.unwrap();
    let theirs = [of("post_aggregations", &answer), of("post_viewer_states", &format!("{C}:{answer}"))];
    assert_eq!(swept.stale, keys(&theirs));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_off_is_not_written() {
    let db = Db::with(|settings| settings.projections = Projections::Only([Projection::LabelEvents].into())).await;
    let p = post_uri(A, "p");
    let ops = vec![like("l", &p), reply("r", &p, &p), label("l")];
    let applied = db.apply(&[live(1, A, vec![post("p", "x")]), live(2, B, ops)]).await;
    assert_eq!(applied.stale.len(), 0);
    for table in ["notifications", "thread_contexts", "post_viewer_states", "penstock.waiting_cids"] {
        assert_eq!(db.rows(&format!("SELECT * FROM {table}")).await.len(), 0, "{table}");
    }
    assert_eq!(db.rows("SELECT FROM label_events").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_missing_is_left_out_unless_it_is_named() {
    let db = Db::new().await;
    db.execute("DROP TABLE notifications, post_viewer_states; ALTER TABLE thread_contexts DROP root_author_like_uri")
        .await;
    let p = post_uri(A, "p");
    let entries = [live(1, A, vec![post("p", "x")]), live(2, B, vec![like("l", &p), label("l")])];
    db.store.check_schema().await.unwrap();
    db.apply(&entries).await;
    assert_eq!(db.rows("SELECT FROM label_events").await.len(), 1);
    // What comes meanwhile is found by the next sweep.
    db.execute("ALTER TABLE thread_contexts ADD root_author_like_uri varchar(512)").await;
    db.sweep().await;
    db.apply(&[live(3, B, vec![reply("r", &p, &p)])]).await;
    assert_eq!(db.rows("SELECT FROM thread_contexts").await.len(), 1);

    let named = Projections::Only([Projection::Notifications, Projection::ThreadContexts].into());
    let settings = StoreSettings { projections: named, ..StoreSettings::new(&db.url) };
    let error = Store::connect(&settings).await.unwrap().check_schema().await.unwrap_err();
    assert!(matches!(&error, SchemaError::Missing(missing) if *missing == ["table notifications"]), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_makes_what_the_workers_would_have_made_and_counts_it_as_read() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    let bookmark = put("app.bsky.bookmark/b", json!({"subject": {"uri": p, "cid": "c"}, "createdAt": TEXT}));
    let answers = vec![reply("r", &p, &p), repost("s", &p), bookmark, mention("m", &[C, A, C]), quote("q", &p)];
    db.apply(&[live(1, A, vec![post("p", "x"), post("gone", "x")]), live(2, C, vec![])]).await;
    db.apply(&[live(3, B, [answers, vec![like("l", &p), follow("f", A), like("g", &post_uri(A, "gone"))]].concat())])
        .await;
    db.apply(&[live(4, A, vec![like("l", &post_uri(B, "r"))])]).await;
    let tables = [
        ("notifications", "'id', 'is_read', 'indexed_at', 'cid'"),
        ("thread_contexts", "'created_at', 'updated_at'"),
        ("post_viewer_states", "'created_at', 'updated_at'"),
    ];
    let mut stood = Vec::new();
    for (table, except) in tables {
        stood.push(db.rows(&format!("SELECT to_jsonb(t) - ARRAY[{except}] AS row FROM {table} AS t ORDER BY 1")).await);
    }
    let auto = Projections::Auto;
    assert_eq!(crate::store::schema::rebuild(&db.url, &auto).await.unwrap(), crate::store::schema::Rebuilt::default());
    // What the workers did not write, or left behind.
    db.execute(
        "DELETE FROM notifications WHERE reason <> 'mention'; DELETE FROM thread_contexts;
         DELETE FROM post_viewer_states WHERE repost_uri IS NOT NULL;
         UPDATE post_viewer_states SET like_uri = NULL, bookmarked = true;
         INSERT INTO post_viewer_states (post_uri, viewer_did, like_uri) VALUES ('x', 'y', 'z');
         INSERT INTO thread_contexts (post_uri) VALUES ('x');
         INSERT INTO notifications (uri, recipient_did, author_did, reason, created_at) VALUES ('x#notification', 'x', 'y', 'like', now())",
    )
    .await;
    crate::store::schema::rebuild(&db.url, &auto).await.unwrap();
    for ((table, except), stood) in tables.into_iter().zip(stood) {
        let rows = db.rows(&format!("SELECT to_jsonb(t) - ARRAY[{except}] AS row FROM {table} AS t ORDER BY 1")).await;
        assert_eq!(rows, stood, "{table}");
    }
    let unread = "SELECT reason FROM notifications WHERE NOT is_read OR indexed_at <> created_at";
    assert!(db.rows(unread).await.iter().all(|row| row["reason"] == "mention"));
    assert_eq!(crate::store::schema::rebuild(&db.url, &auto).await.unwrap(), crate::store::schema::Rebuilt::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_used_up_are_not_the_fault_of_the_data() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    db.apply(&[live(1, A, vec![post("p", "x")])]).await;
    db.execute("SELECT setval('notifications_id_seq', 2147483647)").await;
    let error = db.store.apply("w1", &[live(2, B, vec![like("l", &p)])]).await.unwrap_err();
    assert!(matches!(error, crate::store::ApplyError::Retry { reason: "ids used up", .. }), "{error:?}");
    assert_eq!(db.rows("SELECT FROM likes").await.len(), 0);
}
