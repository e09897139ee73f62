//! Who has which repo, and in which order they are taken.

use std::time::Duration;

use penstock_core::backfill::{BackfillRequest, Reason, Scope};
use penstock_heal::{Backfills, Closed, Queue, Taken, Written};

use crate::rig::{REV, Rig};

const LEASE: Duration = Duration::from_secs(600);

fn all() -> Closed {
    Closed { of_host: 100, ..Closed::default() }
}

fn dids(taken: &[Taken]) -> Vec<&str> {
    let mut dids: Vec<&str> = taken.iter().map(|one| &*one.did).collect();
    dids.sort_unstable();
    dids
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_urgent_comes_first_and_nobody_gets_what_another_has() {
    let rig = Rig::new().await;
    let (one, other) = (Queue::new(rig.store.clone(), "one", LEASE), Queue::new(rig.store.clone(), "other", LEASE));
    for (did, reason) in [("did:plc:c", Reason::Audit), ("did:plc:b", Reason::Sync), ("did:plc:a", Reason::Asked)] {
        one.enqueue(&[did], reason).await.unwrap();
    }
    // A lower reason changes nothing, a higher one does.
    one.enqueue(&["did:plc:a"], Reason::Audit).await.unwrap();
    assert_eq!(dids(&one.take(1, &all()).await.unwrap()), ["did:plc:a"]);
    assert_eq!(dids(&other.take(1, &all()).await.unwrap()), ["did:plc:b"]);
    assert_eq!(dids(&one.take(9, &all()).await.unwrap()), ["did:plc:c"]);
    assert!(other.take(9, &all()).await.unwrap().is_empty());
    other.hand_back_all().await.unwrap();
    assert_eq!(dids(&one.take(9, &all()).await.unwrap()), ["did:plc:b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_over_is_lost_and_its_healer_changes_nothing_any_more() {
    let rig = Rig::new().await;
    let (dead, live) = (Queue::new(rig.store.clone(), "dead", LEASE), Queue::new(rig.store.clone(), "live", LEASE));
    dead.enqueue(&["did:plc:a"], Reason::Chain).await.unwrap();
    let lost = dead.take(1, &all()).await.unwrap().remove(0);
    let written = Written { rev: REV.to_owned(), after: "a.b/c".to_owned(), ..Written::default() };
    assert!(dead.progress("did:plc:a", &written).await.unwrap());
    rig.execute("UPDATE penstock.repairs SET lease = now() - interval '1 second'").await;
    let mut taken = live.take(1, &all()).await.unwrap();
    let taken = taken.remove(0);
    assert_eq!(taken.progress.as_ref(), Some(&written), "it goes on where the other was");
    assert!(dead.renew(&["did:plc:a".into()]).await.unwrap().is_empty());
    assert!(!dead.progress("did:plc:a", &written).await.unwrap());
    assert!(!dead.done(&lost, 1, REV, true).await.unwrap());
    assert!(!dead.give_up(&lost, "cut", "it is").await.unwrap());
    dead.again("did:plc:a", LEASE, 9, "it is", false).await.unwrap();
    dead.hand_back("did:plc:a", Duration::ZERO).await.unwrap();
    let theirs = "SELECT count(*) FROM penstock.repairs WHERE holder = 'live' AND lease > now() AND attempts = 0";
    assert_eq!(rig.count(theirs).await, 1);
    assert_eq!(live.renew(&["did:plc:a".into()]).await.unwrap(), ["did:plc:a"]);
    assert!(live.done(&taken, 1, REV, true).await.unwrap());
    assert_eq!(rig.count("SELECT count(*) FROM penstock.repairs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_while_it_was_read_is_read_again() {
    let rig = Rig::new().await;
    let queue = Queue::new(rig.store.clone(), "one", LEASE);
    queue.enqueue(&["did:plc:a", "did:plc:b"], Reason::Chain).await.unwrap();
    let taken = queue.take(2, &all()).await.unwrap();
    queue.enqueue(&["did:plc:a"], Reason::Sync).await.unwrap();
    for one in &taken {
        assert!(queue.done(one, 1, REV, true).await.unwrap());
    }
    let left = "SELECT count(*) FROM penstock.repairs WHERE did = 'did:plc:a' AND lease IS NULL AND due > now()";
    assert_eq!((rig.count(left).await, rig.count("SELECT count(*) FROM penstock.repairs").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_busy_or_left_alone_do_not_hold_up_the_others() {
    let rig = Rig::new().await;
    let queue = Queue::new(rig.store.clone(), "one", LEASE);
    rig.execute(
        "INSERT INTO penstock.identities (did, host, fetched_at)
           SELECT 'did:plc:away' || n, 'https://away.test', now() FROM generate_series(1, 40) AS n
           UNION ALL SELECT 'did:plc:busy' || n, 'https://busy.test', now() FROM generate_series(1, 5) AS n;
         INSERT INTO penstock.repairs (did, reason, priority) SELECT did, 'sync', 50 FROM penstock.identities;
         INSERT INTO penstock.repairs (did, reason, priority) VALUES ('did:plc:new', 'audit', 20)",
    )
    .await;
    let hosts = vec![("https://away.test".into(), 0), ("https://busy.test".into(), 1)];
    let closed = Closed { hosts, of_host: 2, ..Closed::default() };
    let taken = queue.take(10, &closed).await.unwrap();
    let dids = dids(&taken);
    assert_eq!(dids.len(), 2, "{dids:?}");
    assert!(dids[0].starts_with("did:plc:busy") && dids[1] == "did:plc:new", "{dids:?}");
    let rest = queue.take(10, &Closed { of_host: 2, ..Closed::default() }).await.unwrap();
    assert_eq!(rest.len(), 4, "two of each host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_keeps_to_its_bounds_over_all_healers() {
    let rig = Rig::new().await;
    let (one, other) = (Queue::new(rig.store.clone(), "one", LEASE), Queue::new(rig.store.clone(), "other", LEASE));
    let backfills = Backfills::new(rig.store.clone());
    let repos = |name: &str| Scope::Repos((0..20).map(|n| format!("did:plc:{name}{n}")).collect());
    let narrow = BackfillRequest { parallelism: Some(3), ..BackfillRequest::new(repos("narrow")) };
    backfills.put("narrow", narrow.clone()).await.unwrap();
    assert_eq!(one.take(2, &all()).await.unwrap().len(), 2);
    assert_eq!(other.take(9, &all()).await.unwrap().len(), 1);
    assert!(one.take(9, &all()).await.unwrap().is_empty());
    // What is suspended begins nothing, and goes on with the bounds that it has by then.
    backfills.put("narrow", BackfillRequest { suspend: true, ..narrow.clone() }).await.unwrap();
    one.hand_back_all().await.unwrap();
    assert!(one.take(9, &all()).await.unwrap().is_empty());
    assert_eq!(one.backlog(true).await.unwrap().waiting, 0);
    backfills.put("narrow", BackfillRequest { parallelism: None, ..narrow }).await.unwrap();
    assert_eq!(one.take(100, &all()).await.unwrap().len(), 19);
    let slow = BackfillRequest { rate: Some(0.001), ..BackfillRequest::new(repos("slow")) };
    backfills.put("slow", slow).await.unwrap();
    let taken = (one.take(9, &all()).await.unwrap().len(), other.take(9, &all()).await.unwrap().len());
    assert_eq!(taken.0 + taken.1, 1, "one in so long a time, whoever asks: {taken:?}");
}
