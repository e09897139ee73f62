//! Deleted accounts whose rows wait: how long, what undoes it, and what stands afterwards.

use std::time::Duration;

use super::*;
use crate::store::{Claims, Settled};

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn waiting(grace: Duration) -> Db {
    Db::with(|settings| settings.delete_grace = grace).await
}

fn profile(name: &str) -> Op {
    put("app.bsky.actor.profile/self", json!({ "displayName": name }))
}

/// An account with a bit of everything, and somebody else's post that it likes.
fn history() -> Vec<Entry> {
    let p = post_uri(B, "p");
    vec![
        live(1, B, vec![post("p", "of another")]),
        live(2, A, vec![like("l", &p), repost("r", &p), post("own", "mine"), profile("Ada")]),
        live(3, A, vec![put("com.example.note/n", json!({"n": 1}))]),
        identity(4, A, Some("a.example")),
    ]
}

async fn status(db: &Db) -> (Value, Value) {
    let mut rows = db.rows("SELECT active, status FROM penstock.repos WHERE did = 'did:plc:a'").await;
    let mut row = rows.remove(0);
    (row["active"].take(), row["status"].take())
}

async fn count(db: &Db, table: &str) -> usize {
    db.rows(&format!("SELECT 1 AS one FROM {table}")).await.len()
}

/// All rows of the account and what they count.
async fn own_rows(db: &Db) -> usize {
    let mut rows = 0;
    for table in ["likes", "reposts", "generic_records", "penstock.profiles", "posts WHERE author_did = 'did:plc:a'"] {
        rows += count(db, table).await;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_deleted_account_go_after_the_grace_and_not_before() {
    let db = waiting(DAY).await;
    db.apply_each(&history()).await;
    let before = db.state().await;
    let applied = db.apply(&[deleted(5, A)]).await;
    assert_eq!(applied.claims, Claims { made: 1, withdrawn: 0 });
    assert_eq!(status(&db).await, (json!(false), json!("deleted")), "it is marked at once");
    for hours in [0, 12, 11] {
        db.pass(hours).await;
        db.believe().await;
        db.sweep().await;
        assert_eq!(db.state().await, before, "after {hours} hours more");
    }
    let waits = db.store.claimed_accounts().await.unwrap();
    assert_eq!((waits.deletions, waits.unconfirmed), (1, 0));
    assert!((3000.0..3601.0).contains(&waits.next_seconds.unwrap()), "{waits:?}");

    // Another worker begins, with the same settings: that changes nothing.
    db.store.follow_grace().await.unwrap();
    db.pass(1).await;
    db.believe().await;
    db.sweep().await;
    assert_eq!(own_rows(&db).await, 0);
    let user = db.rows("SELECT handle, display_name FROM users WHERE did = 'did:plc:a'").await;
    assert_eq!(user, [json!({"handle": "a.example", "display_name": null})]);
    let counted = "SELECT like_count, repost_count FROM post_aggregations";
    assert_eq!(db.rows(counted).await, [json!({"like_count": 0, "repost_count": 0})]);
    assert_eq!(count(&db, "penstock.account_claims").await, 0);
    assert_eq!(status(&db).await, (json!(false), json!("deleted")));

    // What came before the deletion stays out, however late it is delivered; the deletion delivered again does nothing.
    let again = db.apply(&[live(3, A, vec![post("late", "x")]), deleted(5, A)]).await;
    assert_eq!((own_rows(&db).await, again.claims), (0, Claims::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_comes_back_in_time_has_everything_in_whatever_order_that_arrives() {
    let undone = [deleted(5, A), account(7, A, true, None)];
    let within = live(6, A, vec![post("within", "meanwhile"), delete("app.bsky.feed.like/l")]);
    let after = live(8, A, vec![post("after", "again")]);
    let mut expected = None;
    let all = [undone[0].clone(), within, undone[1].clone(), after];
    for order in [[0, 1, 2, 3], [2, 1, 0, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 0, 2, 0]] {
        let db = waiting(DAY).await;
        db.apply_each(&history()).await;
        for at in order {
            db.apply(&all[at..=at]).await;
            db.pass(5).await;
            db.believe().await;
            db.sweep().await;
        }
        db.apply(&all).await;
        db.pass(100).await;
        db.believe().await;
        db.sweep().await;
        let state = db.state().await;
        assert_eq!(status(&db).await, (json!(true), Value::Null), "{order:?}");
        assert_eq!(count(&db, "posts WHERE author_did = 'did:plc:a'").await, 3, "{order:?}");
        assert_eq!(*expected.get_or_insert_with(|| state.clone()), state, "{order:?}");
        assert_eq!(count(&db, "penstock.account_claims").await, 0, "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_says_active_undoes_a_deletion_and_only_one_before_it() {
    for (entry, undone) in [
        (account(6, A, true, None), true),
        (account(4, A, true, None), false),
        (account(6, A, false, Some("takendown")), false),
        (account(6, A, false, Some("deactivated")), false),
        (deleted(6, A), false),
        (live(6, A, vec![]), false),
        (identity(6, A, Some("new.example")), false),
    ] {
        for turned in [false, true] {
            let db = waiting(DAY).await;
            db.apply_each(&history()).await;
            let mut entries = [deleted(5, A), entry.clone()];
            if turned {
                entries.reverse();
            }
            db.apply_each(&entries).await;
            db.pass(24).await;
            db.believe().await;
            db.sweep().await;
            assert_eq!(own_rows(&db).await > 0, undone, "{entry:?} {turned}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_after_a_return_has_a_grace_of_its_own() {
    let db = waiting(DAY).await;
    db.apply_each(&history()).await;
    db.apply(&[deleted(5, A)]).await;
    db.pass(23).await;
    // The return comes late, after the second deletion.
    db.apply(&[deleted(7, A)]).await;
    db.apply(&[account(6, A, true, None)]).await;
    db.pass(23).await;
    db.believe().await;
    db.sweep().await;
    assert!(own_rows(&db).await > 0);
    assert_eq!(status(&db).await, (json!(false), json!("deleted")));
    db.pass(1).await;
    db.believe().await;
    db.sweep().await;
    assert_eq!(own_rows(&db).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_said_each_hour_does_not_wait_for_ever() {
    let db = waiting(DAY).await;
    db.apply_each(&history()).await;
    for hour in 0..24 {
        db.apply(&[deleted(5 + hour, A)]).await;
        db.pass(1).await;
    }
    db.apply(&[live(40, A, vec![post("new", "after the last")])]).await;
    db.believe().await;
    db.sweep().await;
    assert_eq!(
        db.rows("SELECT text FROM posts WHERE author_did = 'did:plc:a'").await,
        [json!({"text": "after the last"})]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_that_is_changed_holds_for_those_who_wait_already() {
    for (now, hours, gone) in [(Duration::ZERO, 0, true), (2 * DAY, 25, false), (DAY / 4, 7, true), (DAY / 4, 5, false)]
    {
        let db = waiting(DAY).await;
        db.apply_each(&history()).await;
        db.apply(&[deleted(5, A)]).await;
        let settings = StoreSettings { delete_grace: now, pool_size: 2, ..StoreSettings::new(&db.url) };
        let db = Db { store: Store::connect(&settings).await.unwrap(), url: db.url.clone() };
        db.store.follow_grace().await.unwrap();
        db.pass(hours).await;
        db.believe().await;
        db.sweep().await;
        assert_eq!(own_rows(&db).await == 0, gone, "{now:?} {hours}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_that_was_pruned_meanwhile_brings_nothing_back() {
    let db = waiting(30 * DAY).await;
    db.apply_each(&history()).await;
    db.apply(&[live(4, A, vec![delete("com.example.note/n")]), deleted(5, A)]).await;
    db.store.prune_tombstones(id(100), 100).await.unwrap();
    db.pass(30 * 24).await;
    db.believe().await;
    db.sweep().await;
    db.apply_each(&history()).await;
    assert_eq!(own_rows(&db).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_taken_once_by_many_workers_and_a_crash_loses_none() {
    let db = waiting(Duration::from_millis(1)).await;
    let dids: Vec<String> = (0..40).map(|n| format!("did:plc:r{n}")).collect();
    let entries: Vec<Entry> =
        dids.iter().flat_map(|did| [live(1, did, vec![post("p", "x")]), deleted(2, did)]).collect();
    db.apply(&entries).await;
    db.pass(1).await;
    // Those of one that died before it settled them.
    let lost = db.store.take_claims(10, 0, &[]).await.unwrap();
    assert_eq!(lost.len(), 10);
    let (one, other) = tokio::join!(db.store.take_claims(100, 0, &[]), db.store.take_claims(100, 0, &[]));
    let taken: Vec<_> = [one.unwrap(), other.unwrap()].concat();
    assert_eq!(taken.len(), 30);
    for claim in &taken {
        // Twice, as by two workers that both had it.
        assert_eq!(db.store.settle_claim(claim, &HostAnswer::Believed).await.unwrap(), Settled::Deleted);
        assert_eq!(db.store.settle_claim(claim, &HostAnswer::Believed).await.unwrap(), Settled::Nothing);
    }
    db.believe().await;
    assert_eq!(count(&db, "penstock.account_claims").await, 10);
    db.pass(1).await;
    db.believe().await;
    db.sweep().await;
    assert_eq!((count(&db, "posts").await, count(&db, "penstock.account_claims").await), (0, 0));
}
