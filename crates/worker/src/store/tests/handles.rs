//! Handles where identities are resolved: an event only asks for a check, and the check decides.

use super::*;
use crate::store::{Checked, HandleCheck};

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";

async fn checking() -> Db {
    Db::with(|settings| settings.asks_hosts = true).await
}

async fn handle(db: &Db, did: &str) -> String {
    let rows = db.rows(&format!("SELECT handle FROM users WHERE did = '{did}'")).await;
    rows[0]["handle"].as_str().unwrap().to_owned()
}

async fn taken(db: &Db) -> Vec<HandleCheck> {
    db.store.take_handle_checks(100).await.unwrap()
}

async fn settle(db: &Db, checked: &Checked) -> usize {
    let checks = taken(db).await;
    for check in &checks {
        db.store.settle_handle_check(check, checked).await.unwrap();
    }
    checks.len()
}

async fn pass(db: &Db) {
    db.execute(
        "UPDATE penstock.handle_checks SET due = due - interval '1 hour', checked_at = checked_at - interval '1 hour'",
    )
    .await;
}

fn valid(handle: &str) -> Checked {
    Checked::Valid(handle.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_event_says_of_a_handle_is_not_shown_and_what_a_check_finds_is() {
    for hint in [Some("bank.example"), Some("ada.example"), None] {
        let db = checking().await;
        db.apply(&[identity(1, A, hint)]).await;
        assert_eq!(handle(&db, A).await, "handle.invalid");
        assert_eq!(settle(&db, &valid("ada.example")).await, 1);
        assert_eq!(handle(&db, A).await, "ada.example", "{hint:?}");
        // The same event again asks for nothing, and a pruned row comes back with what was found.
        db.apply(&[identity(1, A, hint)]).await;
        assert_eq!(settle(&db, &Checked::Invalid).await, 0);
        db.execute("DELETE FROM users").await;
        db.apply(&[live(2, A, vec![])]).await;
        assert_eq!(handle(&db, A).await, "ada.example");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_does_not_lead_back_is_invalid_and_checked_again_and_one_that_nobody_knows_of_stays() {
    let db = checking().await;
    db.apply(&[identity(1, A, None)]).await;
    settle(&db, &valid("ada.example")).await;
    db.apply(&[identity(2, A, None)]).await;
    let unknown = Checked::Unknown("the directory is away".to_owned());
    assert_eq!(settle(&db, &unknown).await, 1);
    assert_eq!((handle(&db, A).await.as_str(), taken(&db).await.len()), ("ada.example", 0));
    pass(&db).await;
    assert_eq!(settle(&db, &Checked::Invalid).await, 1);
    assert_eq!((handle(&db, A).await.as_str(), taken(&db).await.len()), ("handle.invalid", 0));
    pass(&db).await;
    assert_eq!(settle(&db, &valid("new.example")).await, 1);
    assert_eq!(handle(&db, A).await, "new.example");
    pass(&db).await;
    assert_eq!(taken(&db).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_an_event_overtook_decides_nothing() {
    let db = checking().await;
    db.apply(&[identity(1, A, None)]).await;
    let before = taken(&db).await;
    db.apply(&[identity(2, A, None)]).await;
    db.store.settle_handle_check(&before[0], &valid("old.example")).await.unwrap();
    assert_eq!(handle(&db, A).await, "handle.invalid");
    pass(&db).await;
    assert_eq!(settle(&db, &valid("new.example")).await, 1);
    assert_eq!(handle(&db, A).await, "new.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_accounts_with_one_handle_the_one_that_no_longer_has_it_is_checked_again() {
    let db = checking().await;
    db.apply(&[identity(1, A, None)]).await;
    settle(&db, &valid("ada.example")).await;
    db.apply(&[identity(2, B, None)]).await;
    settle(&db, &valid("ada.example")).await;
    let checks = taken(&db).await;
    assert_eq!(checks.iter().map(|check| &*check.did).collect::<Vec<_>>(), [A]);
    db.store.settle_handle_check(&checks[0], &Checked::Invalid).await.unwrap();
    assert_eq!((handle(&db, A).await.as_str(), handle(&db, B).await.as_str()), ("handle.invalid", "ada.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_identities_are_not_resolved_nothing_is_checked() {
    let db = Db::new().await;
    db.apply(&[identity(1, A, Some("ada.example")), identity(2, A, None)]).await;
    assert_eq!((handle(&db, A).await.as_str(), taken(&db).await.len()), ("ada.example", 0));
}
