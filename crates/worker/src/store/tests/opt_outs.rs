//! Accounts that forbid their data to be collected.

use super::*;
use crate::store::StoreError;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";

const SETTINGS: &str = "
CREATE TABLE user_settings (
  user_did varchar(255) PRIMARY KEY REFERENCES users (did) ON DELETE CASCADE,
  data_collection_forbidden bool NOT NULL DEFAULT false
)";

impl Db {
    async fn with_settings() -> Self {
        let db = Self::new().await;
        db.execute(SETTINGS).await;
        db
    }

    /// Returns whether an account forbids, and lets a worker obey when the stream is that far.
    async fn forbid(&self, did: &str, forbids: bool, last: u64) {
        sqlx::query(
            "INSERT INTO user_settings VALUES ($1, $2) ON CONFLICT (user_did) DO UPDATE
             SET data_collection_forbidden = excluded.data_collection_forbidden",
        )
        .bind(did)
        .bind(forbids)
        .execute(self.store.pool())
        .await
        .unwrap();
        assert_eq!(self.store.opt_outs_to_obey().await.unwrap(), [did]);
        assert_eq!(self.store.obey_opt_out(did, async || Some(id(last))).await.unwrap(), Some(forbids));
        assert_eq!(self.store.opt_outs_to_obey().await.unwrap(), [""; 0]);
        assert_eq!(self.store.obey_opt_out(did, async || Some(id(last))).await.unwrap(), None);
    }

    /// Counts what stands of an account.
    async fn records_of(&self, did: &str) -> usize {
        let tables = ["posts", "likes", "follows", "generic_records", "penstock.shadowed", "feed_items"];
        let selects = tables.map(|table| format!("SELECT uri FROM {table} WHERE uri LIKE 'at://{did}/%'"));
        self.rows(&selects.join(" UNION ALL ")).await.len()
    }
}

fn follow(rkey: &str, did: &str) -> Op {
    put(&format!("app.bsky.graph.follow/{rkey}"), json!({"subject": did, "createdAt": TEXT}))
}

fn records(n: u64) -> Vec<Op> {
    vec![
        post(&format!("p{n}"), "x"),
        like(&format!("l{n}"), &post_uri(B, "p")),
        follow(&format!("f{n}"), B),
        put(&format!("com.example.note/{n}"), json!({})),
        put("app.bsky.actor.profile/self", json!({"displayName": "A"})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_account_that_opted_out_is_written_and_what_stands_goes() {
    let db = Db::with_settings().await;
    db.apply(&[live(1, A, records(1)), live(2, A, records(2)), identity(3, A, Some("a.example"))]).await;
    assert_eq!(db.records_of(A).await, 10, "the second like and the second follow wait for their place");
    db.forbid(A, true, 3).await;
    let applied = db.apply(&[live(4, A, records(4)), live(5, B, vec![like("l", &post_uri(B, "p"))])]).await;
    assert_eq!(applied.refused, 5);
    db.sweep().await;
    assert_eq!(db.records_of(A).await, 0);
    assert_eq!(db.records_of(B).await, 1);
    let row = "SELECT handle, display_name, profile_record FROM users WHERE did = 'did:plc:a'";
    assert_eq!(db.rows(row).await, [json!({"handle": "a.example", "display_name": null, "profile_record": null})]);
    assert_eq!(db.rows("SELECT did FROM penstock.profiles").await.len(), 0);
    assert_eq!(db.rows("SELECT like_count FROM penstock.waiting_counts").await, [json!({"like_count": 1})]);

    // Even under an ID that lies beyond: the stream was made again, or its clock was set.
    db.apply(&[live(1_000_000, A, records(5)), identity(7, A, Some("new.example"))]).await;
    db.sweep().await;
    assert_eq!(db.records_of(A).await, 0);
    assert_eq!(db.rows(row).await[0]["handle"], "new.example", "who it is stays known, for moderation");
    let dead = db.rows("SELECT did FROM penstock.repos WHERE active IS NOT NULL").await;
    assert_eq!(dead.len(), 0, "the account is not deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_written_again_and_nothing_from_before() {
    let db = Db::with_settings().await;
    db.apply(&[live(1, A, records(1))]).await;
    db.forbid(A, true, 1).await;
    db.apply(&[live(2, A, records(2))]).await;
    db.sweep().await;
    db.forbid(A, false, 4).await;
    // Delivered again, late, and as a replayed dead letter.
    let replayed = Entry { id: id(99), ..live(4, A, records(4)) };
    db.apply(&[live(1, A, records(1)), live(3, A, records(3)), replayed]).await;
    db.sweep().await;
    assert_eq!(db.records_of(A).await, 0);
    db.apply(&[live(5, A, records(5))]).await;
    db.sweep().await;
    assert_eq!(db.records_of(A).await, 5);
    assert_eq!(db.rows("SELECT display_name FROM users WHERE did = 'did:plc:a'").await, [json!({"display_name": "A"})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_another_account_is_not_brought_back() {
    let db = Db::with_settings().await;
    let verify = || put("app.bsky.graph.verification/v", json!({"subject": "did:plc:c", "handle": "c.example"}));
    // The lowest URI has the place, the other waits for it.
    db.apply(&[live(1, A, vec![verify()]), live(2, B, vec![verify()])]).await;
    db.forbid(B, true, 2).await;
    db.apply(&[live(3, A, vec![delete("app.bsky.graph.verification/v")])]).await;
    db.sweep().await;
    assert_eq!(db.rows("SELECT uri FROM verifications").await.len(), 0);
    assert_eq!(db.records_of(B).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misfit_of_an_account_that_opted_out_is_kept_nowhere() {
    let db = Db::with_settings().await;
    let misfit = || vec![put("app.bsky.feed.like/x", json!({"secret": 1}))];
    assert_eq!(db.apply(&[live(1, A, misfit())]).await.rejected.len(), 1);
    db.forbid(A, true, 1).await;
    let applied = db.apply(&[live(2, A, misfit()), live(3, B, misfit())]).await;
    let entries: Vec<_> = applied.rejected.iter().map(|rejected| rejected.entry).collect();
    assert_eq!(entries, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_it_follows_is_not_told_by_a_stub() {
    let db = Db::with_settings().await;
    db.apply(&[live(1, A, vec![])]).await;
    db.forbid(A, true, 1).await;
    db.apply(&[live(2, A, vec![follow("c", "did:plc:c"), follow("d", "did:plc:d")])]).await;
    db.apply(&[live(3, A, vec![follow("c", "did:plc:c")]), live(3, B, vec![follow("d", "did:plc:d")])]).await;
    let dids = db.rows("SELECT did FROM users ORDER BY did").await;
    assert_eq!(dids, [json!({"did": A}), json!({"did": B}), json!({"did": "did:plc:d"})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_waits_until_redis_says_how_far_the_stream_is() {
    let db = Db::with_settings().await;
    db.apply(&[live(1, A, records(1))]).await;
    db.execute("INSERT INTO user_settings VALUES ('did:plc:a', true)").await;
    assert_eq!(db.store.obey_opt_out(A, async || None).await.unwrap(), None);
    assert_eq!(db.store.opt_outs_to_obey().await.unwrap(), [A]);
    db.apply(&[live(2, A, records(2))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_not_there_say_nothing_and_those_that_cannot_be_read_are_an_error() {
    let db = Db::new().await;
    assert_eq!(db.store.opt_outs_to_obey().await.unwrap(), [""; 0]);
    db.execute("CREATE TABLE user_settings (user_did varchar(255) PRIMARY KEY)").await;
    assert_eq!(db.store.opt_outs_to_obey().await.unwrap(), [""; 0]);
    db.execute("DROP TABLE user_settings").await;
    db.execute("CREATE TABLE user_settings (user_did varchar(255), data_collection_forbidden text)").await;
    db.execute("INSERT INTO user_settings VALUES ('did:plc:a', 'perhaps')").await;
    assert!(matches!(db.store.opt_outs_to_obey().await, Err(StoreError::OptOuts(_))));
}
