//! Accounts that are said to be gone, where their hosts are asked: what the host says is what becomes of them.

use std::time::Duration;

use super::*;
use crate::store::{Claim, Settled};

const A: &str = "did:plc:a";
const DAY: Duration = Duration::from_secs(24 * 3600);

async fn asking() -> Db {
    let db = Db::with(|settings| (settings.delete_grace, settings.asks_hosts) = (DAY, true)).await;
    db.apply(&[live(1, A, vec![post("p", "mine")])]).await;
    db
}

/// Takes what is due, and lets it be known where that is.
async fn located(db: &Db, host: &str) -> Vec<Claim> {
    for claim in db.store.take_claims(0, 100, &[]).await.unwrap() {
        assert_eq!(claim.host, "");
        let settled = db.store.settle_claim(&claim, &HostAnswer::At(host.to_owned())).await.unwrap();
        assert_eq!(settled, Settled::Located);
    }
    db.store.take_claims(100, 0, &[]).await.unwrap()
}

/// Asks until nothing is due.
async fn answer(db: &Db, answer: &HostAnswer) -> Vec<Settled> {
    let mut all = Vec::new();
    loop {
        let claims = located(db, "https://a.test").await;
        if claims.is_empty() {
            return all;
        }
        for claim in claims {
            all.push(db.store.settle_claim(&claim, answer).await.unwrap());
        }
        assert!(all.len() <= 20, "{all:?}");
    }
}

fn present(active: bool, status: Option<&str>) -> HostAnswer {
    HostAnswer::Present { active, status: status.map(str::to_owned) }
}

async fn status(db: &Db) -> (Value, Value) {
    let mut rows = db.rows("SELECT active, status FROM penstock.repos WHERE did = 'did:plc:a'").await;
    let mut row = rows.remove(0);
    (row["active"].take(), row["status"].take())
}

async fn posts(db: &Db) -> usize {
    db.sweep().await;
    db.rows("SELECT uri FROM posts").await.len()
}

fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        for mut tail in permutations(&rest) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}

/// Whatever order events come in, and whenever its host is asked, an account ends as its host says.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_ends_as_its_host_says_in_whatever_order_events_come() {
    let events = [
        account(3, A, true, None),
        deleted(5, A),
        account(6, A, false, Some("takendown")),
        live(7, A, vec![put("com.example.note/n", json!({}))]),
    ];
    let gone = (json!(false), json!("deleted"));
    for (says, expected, rows) in [
        (present(true, None), (json!(true), Value::Null), 1),
        (present(false, Some("takendown")), (json!(false), json!("takendown")), 1),
        (present(false, Some("deactivated")), (json!(false), json!("deactivated")), 1),
        (present(false, Some("deleted")), gone.clone(), 0),
        (HostAnswer::Gone, gone, 0),
    ] {
        for (at, order) in permutations(&events).iter().enumerate() {
            let db = asking().await;
            for (n, event) in order.iter().enumerate() {
                db.apply(std::slice::from_ref(event)).await;
                // Now and then somebody asks between two of them.
                if (at + n) % 3 == 0 {
                    db.pass(1).await;
                    answer(&db, &says).await;
                }
            }
            db.pass(1).await;
            answer(&db, &says).await;
            db.pass(25).await;
            answer(&db, &says).await;
            assert_eq!((status(&db).await, posts(&db).await), (expected.clone(), rows), "{says:?} {order:#?}");
            let left = db.rows("SELECT did FROM penstock.account_claims").await;
            assert_eq!(left.len(), 0, "{says:?} {order:#?}");
            assert_eq!(db.rows("SELECT uri FROM generic_records").await.len(), 1, "what came later stays");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gives_back_is_believed_at_once_and_withdraws_what_is_being_asked() {
    let db = asking().await;
    db.apply(&[deleted(5, A)]).await;
    assert_eq!(status(&db).await, (Value::Null, Value::Null), "nobody has confirmed it");
    let asked = located(&db, "https://a.test").await;
    let applied = db.apply(&[account(6, A, true, None)]).await;
    assert_eq!(applied.claims.withdrawn, 1);
    assert_eq!(status(&db).await, (json!(true), Value::Null));
    // The answer to the question from before comes too late.
    assert_eq!(db.store.settle_claim(&asked[0], &HostAnswer::Gone).await.unwrap(), Settled::Nothing);
    assert_eq!((status(&db).await, posts(&db).await), ((json!(true), Value::Null), 1));
    // Nor does it answer what was said since.
    db.apply(&[deleted(8, A)]).await;
    assert_eq!(db.store.settle_claim(&asked[0], &HostAnswer::Gone).await.unwrap(), Settled::Nothing);
    assert_eq!(answer(&db, &HostAnswer::Gone).await, [Settled::Confirmed]);
    assert_eq!((status(&db).await, posts(&db).await), ((json!(false), json!("deleted")), 1));
    // Confirmed or not: in time it is undone.
    db.pass(23).await;
    db.apply(&[account(9, A, true, None)]).await;
    db.pass(25).await;
    assert_eq!(answer(&db, &HostAnswer::Gone).await, []);
    assert_eq!((status(&db).await, posts(&db).await), ((json!(true), Value::Null), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_away_for_good_hides_the_account_and_removes_no_row() {
    let away = HostAnswer::Nobody("is away".to_owned());
    let db = asking().await;
    db.apply(&[deleted(5, A)]).await;
    for hours in [1, 1, 20] {
        assert_eq!(answer(&db, &away).await, [Settled::Unresolved]);
        assert_eq!(status(&db).await, (Value::Null, Value::Null));
        db.pass(hours).await;
    }
    db.pass(2).await;
    assert_eq!(answer(&db, &away).await, [Settled::Hidden]);
    for _ in 0..10 {
        db.pass(50).await;
        assert_eq!(answer(&db, &away).await, [Settled::Unresolved]);
    }
    assert_eq!((status(&db).await, posts(&db).await), ((json!(false), json!("deleted")), 1));
    let claims = db.store.claimed_accounts().await.unwrap();
    assert_eq!((claims.unconfirmed, claims.unanswered, claims.deletions), (1, 1, 0));
    // It was there all the time.
    db.pass(2).await;
    assert_eq!(answer(&db, &present(true, None)).await, [Settled::Denied]);
    assert_eq!((status(&db).await, posts(&db).await), ((json!(true), Value::Null), 1));

    // One that confirmed it once need not be there any more when rows go.
    db.apply(&[deleted(7, A)]).await;
    assert_eq!(answer(&db, &HostAnswer::Gone).await, [Settled::Confirmed]);
    db.pass(25).await;
    assert_eq!(answer(&db, &away).await, [Settled::Deleted]);
    assert_eq!(posts(&db).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_asked_about_one_account_at_a_time_and_no_other_waits_for_it() {
    let db = Db::with(|settings| (settings.delete_grace, settings.asks_hosts) = (DAY, true)).await;
    let dids: Vec<String> = (0..50).map(|n| format!("did:plc:r{n:02}")).collect();
    db.apply(&dids.iter().map(|did| deleted(2, did)).collect::<Vec<_>>()).await;
    for claim in db.store.take_claims(0, 100, &[]).await.unwrap() {
        let host = if claim.did.ends_with("49") { "https://b.test" } else { "https://a.test" };
        db.store.settle_claim(&claim, &HostAnswer::At(host.to_owned())).await.unwrap();
    }
    let taken = db.store.take_claims(64, 16, &[]).await.unwrap();
    let mut hosts: Vec<&str> = taken.iter().map(|claim| &*claim.host).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["https://a.test", "https://b.test"]);
    let busy = ["https://a.test".to_owned()];
    assert_eq!(db.store.take_claims(64, 16, &busy).await.unwrap(), []);
    let next = db.store.take_claims(64, 16, &[]).await.unwrap();
    assert_eq!(next.iter().map(|claim| &*claim.host).collect::<Vec<_>>(), ["https://a.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_repeated_is_asked_about_no_sooner() {
    let away = HostAnswer::Nobody("is away".to_owned());
    let db = asking().await;
    db.apply(&[deleted(5, A)]).await;
    assert_eq!(answer(&db, &away).await, [Settled::Unresolved]);
    for order in 6..10 {
        db.apply(&[deleted(order, A)]).await;
        assert_eq!(answer(&db, &away).await, []);
    }
    // Something else, which is asked about soon, and not with each event.
    db.apply(&[account(10, A, false, Some("takendown"))]).await;
    assert_eq!(answer(&db, &away).await, []);
    let soon = "SELECT due <= clock_timestamp() + interval '31 seconds' AS soon FROM penstock.account_claims";
    assert_eq!(db.rows(soon).await, [json!({"soon": true})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_from_before_hosts_were_asked_no_more_are_believed() {
    let db = asking().await;
    db.apply(&[deleted(5, A)]).await;
    let settings = StoreSettings { delete_grace: DAY, pool_size: 2, ..StoreSettings::new(&db.url) };
    let db = Db { store: Store::connect(&settings).await.unwrap(), url: db.url.clone() };
    db.believe().await;
    assert_eq!((status(&db).await, posts(&db).await), ((json!(false), json!("deleted")), 1));
    db.pass(24).await;
    db.believe().await;
    assert_eq!(posts(&db).await, 0);
}
