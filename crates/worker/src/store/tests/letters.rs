//! Dead letters in PostgreSQL: kept once, and within their bounds.

use penstock_core::dead_letter::Bounds;

use super::*;
use crate::store::DeadLetter;

pub(super) fn letter<'a>(orig_id: String, data: &'a [u8], repo: &'a str) -> DeadLetter<'a> {
    DeadLetter {
        orig_id: orig_id.into(),
        kind: "commit",
        data,
        seq: "",
        deliveries: 1,
        error: "not\0json",
        consumer: "w1",
        repo,
    }
}

impl Db {
    pub(super) async fn bound(&self, bounds: Bounds) -> u64 {
        let mut removed = 0;
        loop {
            match self.store.bound_dead_letters(bounds).await.unwrap() {
                0 => return removed,
                some => removed += some,
            }
        }
    }

    async fn held(&self) -> Value {
        let by_repo =
            "SELECT coalesce(repo, kind) AS repo, count(*) AS n FROM penstock.dead_letters GROUP BY 1 ORDER BY 1";
        let rows = self.rows(by_repo).await;
        rows.iter().map(|row| json!([row["repo"], row["n"]])).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_kept_once_and_byte_for_byte() {
    let db = Db::new().await;
    db.store.dead_letter(&letter("3-0".to_owned(), b"\xff\0{", "")).await.unwrap();
    db.store.dead_letter(&DeadLetter { deliveries: 2, ..letter("3-0".to_owned(), b"\xff\0{", "") }).await.unwrap();
    assert_eq!(
        db.rows("SELECT encode(data, 'hex') AS data, deliveries, error, repo FROM penstock.dead_letters").await,
        [json!({"data": "ff007b", "deliveries": 2, "error": "notjson", "repo": null})]
    );
    assert_eq!(db.bound(Bounds { bytes: 1_000, count: 10 }).await, 0);
    // Somebody replayed it, and it fails again.
    let settle = sqlx::query("UPDATE penstock.dead_letters SET settled_at = now()");
    assert_eq!(settle.execute(db.store.pool()).await.unwrap().rows_affected(), 1);
    db.store.dead_letter(&letter("3-0".to_owned(), b"{}", "")).await.unwrap();
    let listed = "SELECT settled_at IS NULL AS listed FROM penstock.dead_letters";
    assert_eq!(db.rows(listed).await, [json!({"listed": true})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_an_event_that_was_read_again_is_the_same_letter() {
    let db = Db::new().await;
    let first = DeadLetter { seq: "77", ..letter("1700000000000-5".to_owned(), b"{bad", "did:plc:a") };
    let again = |orig_id: &'static str| DeadLetter { orig_id: orig_id.into(), deliveries: 4, ..first.clone() };
    db.store.dead_letter(&first).await.unwrap();
    let listed = "SELECT orig_id, seq, deliveries, settled_at IS NULL AS open FROM penstock.dead_letters ORDER BY 1";
    let created = "SELECT created_at FROM penstock.dead_letters";
    let since = db.rows(created).await;
    sqlx::query("UPDATE penstock.dead_letters SET settled_at = now()").execute(db.store.pool()).await.unwrap();
    // Redis was emptied, the relay sent it again, and it failed again, twice.
    for _ in 0..2 {
        db.store.dead_letter(&again("1800000000000-0")).await.unwrap();
        let one = json!({"orig_id": "1800000000000-0", "seq": "77", "deliveries": 4, "open": true});
        assert_eq!(db.rows(listed).await, [one]);
    }
    assert_eq!(db.rows(created).await, since, "it is as old as it was");
    // Another number, other data, and none at all are other letters.
    db.store.dead_letter(&DeadLetter { seq: "78", ..again("1800000000000-1") }).await.unwrap();
    db.store.dead_letter(&DeadLetter { data: b"{worse", ..again("1800000000000-2") }).await.unwrap();
    db.store.dead_letter(&DeadLetter { seq: "", ..again("1800000000000-3") }).await.unwrap();
    db.store.dead_letter(&DeadLetter { seq: "", ..again("1800000000000-4") }).await.unwrap();
    assert_eq!(db.rows(listed).await.len(), 5);
    // A number of somebody else's may be anything.
    let long = "9".repeat(10_000);
    db.store.dead_letter(&DeadLetter { seq: &long, ..again("1800000000000-5") }).await.unwrap();
    db.store.dead_letter(&DeadLetter { seq: &long, ..again("1800000000000-6") }).await.unwrap();
    assert_eq!(db.rows(listed).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_repo_pushes_out_its_own_letters_and_the_oldest_go_last_of_all() {
    let db = Db::new().await;
    let small = b"{}".as_slice();
    for at in 0..40 {
        let repo = format!("did:plc:o{}", at % 8);
        db.store.dead_letter(&letter(format!("1-{at}"), small, &repo)).await.unwrap();
    }
    db.store.dead_letter(&DeadLetter { kind: "message", ..letter("message:1".to_owned(), small, "") }).await.unwrap();
    let flood = "INSERT INTO penstock.dead_letters (orig_id, kind, data, seq, deliveries, error, consumer, repo)
        SELECT '2-' || n, 'commit', '{}', '', 1, '', 'w1', 'did:plc:flood' FROM generate_series(1, 5000) AS n";
    db.execute(flood).await;
    // By number: 100 letters of 1 kB at least.
    let bounds = Bounds { bytes: 100_000, count: 100 };
    assert_eq!(db.bound(bounds).await, 5_041 - 100);
    let others = |flood: u64| {
        let mut held = vec![json!(["did:plc:flood", flood])];
        held.extend((0..8).map(|repo| json!([format!("did:plc:o{repo}"), 5])));
        held.push(json!(["message", 1]));
        Value::from(held)
    };
    assert_eq!(db.held().await, others(59));
    // By bytes: ten large ones of the same repo.
    for at in 0..10 {
        db.store.dead_letter(&letter(format!("3-{at}"), &[b'x'; 9_000], "did:plc:flood")).await.unwrap();
    }
    db.bound(bounds).await;
    assert_eq!(db.held().await, others(6), "six large ones and 41 small ones are 95 kB, seven are 104 kB");
    // Where nobody has more than a share, the oldest go.
    for at in 0..200 {
        db.store.dead_letter(&letter(format!("4-{at}"), small, &format!("did:plc:n{at}"))).await.unwrap();
    }
    db.bound(bounds).await;
    let left =
        db.rows("SELECT orig_id FROM penstock.dead_letters WHERE orig_id LIKE '1-%' OR orig_id = 'message:1'").await;
    assert_eq!(left.len(), 0);
    let newest = db.rows("SELECT orig_id FROM penstock.dead_letters ORDER BY created_at DESC LIMIT 1").await;
    assert_eq!(newest, [json!({"orig_id": "4-199"})]);
}
