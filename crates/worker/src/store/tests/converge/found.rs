//! What the properties found, as small as it could be made.

use std::time::{Duration, Instant};

use super::super::*;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";
const C: &str = "did:plc:c";

/// The commit of another entry as another host tells it.
fn told_again(order: u64, first: &Entry) -> Entry {
    Entry { id: id(order), order: id(order), seq: Seq::new(1000 + order), event: first.event.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_came_from_two_hosts_has_the_number_of_its_last_entry() {
    let first = live(1, A, vec![post("p", "x")]);
    let again = told_again(5, &first);
    for entries in [[first.clone(), again.clone()], [again, first]] {
        for size in [1, 2] {
            let db = Db::new().await;
            for batch in entries.chunks(size) {
                db.apply(batch).await;
            }
            assert_eq!(
                db.rows("SELECT commit_seq FROM posts").await,
                [json!({"commit_seq": "0000000000005-000000:1005"})]
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_comes_again_and_loses_its_place_in_one_batch_waits_under_its_last_entry() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    let first = live(1, A, vec![like("one", &p)]);
    db.apply(std::slice::from_ref(&first)).await;
    db.apply(&[told_again(5, &first), live(6, A, vec![like("two", &p)])]).await;
    assert_eq!(
        db.rows("SELECT entry_id FROM penstock.shadowed").await,
        [json!({"entry_id": "0000000000005-000000:1005"})]
    );
    // Else a deletion between the two would take it along.
    db.apply(&[deleted(3, A)]).await;
    db.sweep().await;
    assert_eq!(db.rows("SELECT uri FROM penstock.shadowed").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_comes_again_and_gets_its_place_in_one_batch_stands_under_its_last_entry() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    let first = live(1, A, vec![like("one", &p)]);
    db.apply(&[first.clone(), live(2, A, vec![like("two", &p)])]).await;
    db.apply(&[told_again(5, &first), live(6, A, vec![delete("app.bsky.feed.like/two")])]).await;
    assert_eq!(db.rows("SELECT commit_seq FROM likes").await, [json!({"commit_seq": "0000000000005-000000:1005"})]);
    assert_eq!(db.rows("SELECT uri FROM penstock.shadowed").await.len(), 0);
}

/// A sweep that looked for rows before it held the lock took rows that moved on meanwhile for rows that cannot go.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_not_done_because_a_row_moved_on_while_it_waited() {
    let db = Db::new().await;
    db.apply(&[live(1, A, vec![post("p", "x"), put("com.example.note/n", json!({}))]), live(2, C, vec![])]).await;
    db.apply(&[deleted(3, A)]).await;
    let mut other = db.store.pool().begin().await.unwrap();
    sqlx::raw_sql(
        "SELECT FROM penstock.repos WHERE did = 'did:plc:a' FOR NO KEY UPDATE;
         UPDATE posts SET commit_seq = '0000000000009-000000'",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    let commit = async {
        let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        let deadline = Instant::now() + Duration::from_secs(60);
        while db.rows(waits).await.is_empty() {
            assert!(Instant::now() < deadline, "nobody waits for a lock");
            tokio::task::yield_now().await;
        }
        other.commit().await.unwrap();
    };
    let (swept, ()) = tokio::join!(db.store.sweep_deleted("w1", 1), commit);
    swept.unwrap();
    db.sweep().await;
    assert_eq!(db.rows("SELECT uri FROM posts").await.len(), 1);
    assert_eq!(db.rows("SELECT uri FROM generic_records").await.len(), 0);
}
