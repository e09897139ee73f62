//! What a repo's row says of its chain of commits.

use penstock_core::entry::Proven;

use super::*;
use crate::store::Desynchronized;

const A: &str = "did:plc:a";

fn proven(order: u64, rev: &str, root: Option<u8>, sync: Option<&str>) -> Entry {
    let mut entry = commit(order, A, Some(rev), vec![]);
    let Event::Commit(commit) = &mut entry.event else { return entry };
    commit.proven = Proven { root: root.map(|byte| [byte; 8]), sync: sync.map(str::to_owned) };
    entry
}

async fn row(db: &Db) -> Value {
    let query = "SELECT rev, encode(root, 'hex') AS root, sync, sync_at IS NOT NULL AS at FROM penstock.repos";
    db.rows(&format!("{query} WHERE did = '{A}'")).await.remove(0)
}

fn expected(rev: &str, root: Option<&str>, sync: Option<&str>) -> Value {
    json!({"rev": rev, "root": root, "sync": sync, "at": sync.is_some()})
}

#[tokio::test]
async fn the_root_goes_with_the_greatest_rev_whatever_the_order() {
    let (two, three) = ("0202020202020202", "0303030303030303");
    let entries = [proven(1, "3a", Some(1), None), proven(2, "3b", Some(2), None), proven(3, "3c", Some(3), None)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let db = Db::new().await;
        for at in order {
            db.apply(&entries[at..=at]).await;
        }
        assert_eq!(row(&db).await, expected("3c", Some(three), None), "{order:?}");
    }
    let db = Db::new().await;
    db.apply(&entries[..2]).await;
    assert_eq!(row(&db).await, expected("3b", Some(two), None), "two in one batch");
    db.apply(&[proven(4, "3b", None, None)]).await;
    assert_eq!(row(&db).await, expected("3b", Some(two), None), "the same commit, not verified");
    db.apply(&[proven(5, "3bb", None, None)]).await;
    assert_eq!(row(&db).await, expected("3bb", None, None), "a later one, not verified");
    db.apply(&[commit(6, A, None, vec![])]).await;
    assert_eq!(row(&db).await, expected("3bb", Some(""), None), "one without a rev");
    db.apply(&[proven(7, "3c", Some(3), None)]).await;
    assert_eq!(row(&db).await, expected("3c", Some(three), None));
    db.apply(&[identity(8, A, None), account(9, A, true, None)]).await;
    assert_eq!(row(&db).await, expected("3c", Some(three), None));
}

#[tokio::test]
async fn a_repo_is_marked_once_and_the_first_reason_stays() {
    let db = Db::new().await;
    db.apply(&[proven(1, "3a", Some(1), None)]).await;
    db.apply(&[proven(2, "3b", Some(2), Some("since"))]).await;
    assert_eq!(row(&db).await["sync"], "since");
    let since = db.rows("SELECT sync_at FROM penstock.repos").await;
    db.apply(&[proven(3, "3c", Some(3), Some("prev_data"))]).await;
    let mark = |did: &str, reason: &str| Desynchronized { did: did.to_owned(), reason: reason.to_owned() };
    db.store.mark_desynchronized(&[mark(A, "sync"), mark("did:plc:new", "sync")]).await.unwrap();
    assert_eq!(row(&db).await, expected("3c", Some("0303030303030303"), Some("since")));
    assert_eq!(db.rows("SELECT sync_at FROM penstock.repos WHERE did = 'did:plc:a'").await, since);
    let new = "SELECT sync, rev, root FROM penstock.repos WHERE did = 'did:plc:new'";
    assert_eq!(db.rows(new).await, [json!({"sync": "sync", "rev": null, "root": null})]);
}
