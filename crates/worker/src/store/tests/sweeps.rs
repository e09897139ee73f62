//! Sweeps of deleted accounts: they take turns, and one that cannot be swept holds nobody up.

use std::time::{Duration, Instant};

use super::*;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";
const C: &str = "did:plc:c";

fn note(n: usize) -> Op {
    put(&format!("com.example.note/n{n}"), json!({ "n": n }))
}

/// Makes accounts with so many records each, and deletes them.
async fn delete_accounts(db: &Db, accounts: &[(&str, usize)]) {
    for (order, (did, records)) in (1..).zip(accounts) {
        db.apply(&[live(order, did, (0..*records).map(note).collect())]).await;
        db.apply(&[deleted(1000 + order, did)]).await;
    }
}

/// Returns whose records are there, and how many.
async fn left(db: &Db) -> Vec<(String, u64)> {
    let rows = db.rows("SELECT author_did AS did, count(*) AS n FROM generic_records GROUP BY 1 ORDER BY 1").await;
    rows.iter().map(|row| (row["did"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap())).collect()
}

/// Sweeps until there is nothing to do for now.
async fn sweep_what_is_due(db: &Db) -> Vec<crate::store::Unswept> {
    let mut failed = Vec::new();
    loop {
        let swept = db.store.sweep_deleted("w1", 4).await.unwrap();
        failed.extend(swept.failed);
        if !swept.more {
            return failed;
        }
    }
}

async fn due_now(db: &Db) {
    db.execute("UPDATE penstock.sweeps SET due = now()").await;
}

const REFUSE: &str = "
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF OLD.author_did = 'did:plc:a' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '23000'; END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER refuse BEFORE DELETE ON generic_records FOR EACH ROW EXECUTE FUNCTION refuse();";

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_swept_holds_nobody_up() {
    let db = Db::new().await;
    db.execute(REFUSE).await;
    delete_accounts(&db, &[(A, 3), (B, 9), (C, 1)]).await;
    let failed = sweep_what_is_due(&db).await;
    assert_eq!(left(&db).await, [(A.to_owned(), 3)]);
    let told: Vec<_> = failed.iter().map(|failed| (&*failed.what, failed.reason, failed.in_trouble)).collect();
    assert_eq!(told, [(A, "data", false), (A, "data", false), (A, "data", true)]);
    let kept =
        db.rows("SELECT what, attempts, due > now() AS waits, error ~ 'not this one' AS told FROM penstock.sweeps");
    assert_eq!(kept.await, [json!({"what": A, "attempts": 3, "waits": true, "told": true})]);
    // Who comes meanwhile is not held up either.
    delete_accounts(&db, &[("did:plc:d", 5)]).await;
    assert_eq!(sweep_what_is_due(&db).await, []);
    assert_eq!(left(&db).await, [(A.to_owned(), 3)]);
    db.execute("DROP TRIGGER refuse ON generic_records").await;
    due_now(&db).await;
    assert_eq!(sweep_what_is_due(&db).await, []);
    assert_eq!(left(&db).await, []);
    assert!(db.rows("SELECT * FROM penstock.sweeps").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_row_somebody_holds_is_passed_over() {
    let db = Db::new().await;
    delete_accounts(&db, &[(A, 3), (B, 9)]).await;
    let mut holder = db.store.pool().begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM penstock.repos WHERE did = 'did:plc:a' FOR UPDATE").execute(&mut *holder).await.unwrap();
    let began = Instant::now();
    let failed = sweep_what_is_due(&db).await;
    assert_eq!(left(&db).await, [(A.to_owned(), 3)]);
    assert!(failed.iter().all(|failed| failed.reason == "lock timeout"), "{failed:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    holder.rollback().await.unwrap();
    due_now(&db).await;
    sweep_what_is_due(&db).await;
    assert_eq!(left(&db).await, []);
}

/// Each record of A takes 0.3 s to go, and a statement one second.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_takes_too_long_is_halved() {
    let db = Db::with(|settings| settings.statement_timeout = Duration::from_secs(1)).await;
    db.execute(
        "CREATE FUNCTION delay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF OLD.author_did = 'did:plc:a' THEN PERFORM pg_sleep(0.3); END IF;
           RETURN OLD;
         END $$;
         CREATE TRIGGER delay BEFORE DELETE ON generic_records FOR EACH ROW EXECUTE FUNCTION delay();",
    )
    .await;
    delete_accounts(&db, &[(A, 5), (B, 9)]).await;
    let mut failed = Vec::new();
    while !left(&db).await.is_empty() {
        let swept = db.store.sweep_deleted("w1", 4).await.unwrap();
        failed.extend(swept.failed.map(|failed| failed.reason));
        assert!(failed.len() < 10, "{failed:?}");
        due_now(&db).await;
    }
    assert!(!failed.is_empty() && failed.iter().all(|reason| *reason == "statement cancelled"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_account_and_a_post_with_much_behind_it_wait_for_each_other_only_a_step() {
    let db = Db::with(|settings| settings.page = 1).await;
    let p = post_uri(C, "p");
    db.apply(&[live(1, C, vec![post("p", "x")])]).await;
    let likers = ["did:plc:f", "did:plc:g", "did:plc:h"];
    for (order, did) in (10..).zip(likers) {
        db.apply(&[live(order, did, vec![like("l", &p)])]).await;
    }
    // Three notifications go with the post, one at a time.
    db.apply(&[live(20, C, vec![delete("app.bsky.feed.post/p")])]).await;
    assert_eq!(db.rows("SELECT uri FROM penstock.unfinished_posts").await.len(), 1);
    let small: Vec<String> = (0..5).map(|n| format!("did:plc:s{n}")).collect();
    delete_accounts(&db, &[(A, 100)]).await;
    for (order, did) in (100..).zip(&small) {
        db.apply(&[live(order, did, vec![note(0)]), deleted(200 + order, did)]).await;
    }
    let mut steps = 0;
    let others_wait = async || {
        let unfinished = db.rows("SELECT uri FROM penstock.unfinished_posts").await.len();
        left(&db).await.len() > 1 || unfinished > 0
    };
    while others_wait().await {
        assert!(db.store.sweep_deleted("w1", 1).await.unwrap().more);
        steps += 1;
        assert!(steps < 40, "{:?}", left(&db).await);
    }
    assert!(left(&db).await[0].1 > 50, "the huge one is not through by then");
    assert!(db.rows("SELECT uri FROM notifications").await.is_empty());
    db.sweep().await;
    assert_eq!(left(&db).await, []);
}
