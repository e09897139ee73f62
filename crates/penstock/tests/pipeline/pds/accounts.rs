//! Accounts that move to another server, and accounts that go.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::{PATIENCE, eventually};

use super::records;
use super::stage::Stage;
use super::world::World;

/// Long enough to be seen while it lasts, on a machine that has much else to do.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_former_server_takes_nothing_away_and_a_true_deletion_waits_for_its_grace() {
    let Some(world) = World::start(2).await else { return };
    let mut stage = Stage::enforcing(&world).await;
    stage.set("PENSTOCK_WORKER_DELETE_GRACE", &format!("{}s", GRACE.as_secs()));
    let (ingest, worker) = (stage.ingest(), stage.worker("w-1"));
    let mut alice = world.account(0, "alice").await;
    let bob = world.account(1, "bob").await;
    let post = world.post(&bob, "here to stay").await;
    records::of_every_kind(&world, &alice, &bob, &post).await;
    stage.caught_up(&world).await;

    "alice.pds2.test".clone_into(&mut alice.handle);
    world.tell("move", json!({"did": alice.did, "to": 1, "handle": alice.handle})).await;
    world.post(&alice, "from the new server").await;
    stage.caught_up(&world).await;
    records::assert_rows_are_those_of(&world, &stage.rig, &alice).await;

    // Each is carried before the next: a deletion takes what was not read yet out of the server's sequence.
    for command in ["deactivate", "delete"] {
        world.tell(command, json!({"did": alice.did, "server": 0})).await;
        stage.ingested(&world).await;
    }
    world.post(&alice, "still here").await;
    let status = world.tell("repo_status", json!({"did": alice.did, "server": 0})).await;
    assert_eq!(status["body"]["error"], "RepoNotFound");

    // The deletion of another account, later than what was said of the first one.
    let carol = world.account(0, "carol").await;
    records::of_every_kind(&world, &carol, &bob, &post).await;
    stage.caught_up(&world).await;
    let rows = records::rows(&stage.rig, &carol).await.len();
    assert!(rows > 0);
    let before = Instant::now();
    world.tell("delete", json!({"did": carol.did})).await;
    // Each state that it was seen in: whether it is hidden, and whether all rows, some or none are there.
    let mut seen = BTreeSet::new();
    loop {
        let hidden = stage.status(&carol).await == (Some(false), Some("deleted".to_owned()));
        let left = records::rows(&stage.rig, &carol).await.len();
        seen.insert((hidden, left == rows));
        if left == 0 {
            break;
        }
        assert!(before.elapsed() < PATIENCE, "{left} rows are still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(before.elapsed() >= GRACE, "rows were gone after {:?}", before.elapsed());
    assert!(seen.contains(&(true, true)), "the account is hidden while its rows are there: {seen:?}");

    stage.caught_up(&world).await;
    for account in [&alice, &bob] {
        records::assert_rows_are_those_of(&world, &stage.rig, account).await;
        assert!(stage.is_active(account).await, "{} is active", account.handle);
    }
    stage.assert_nothing_failed().await;
    stage.assert_proven(&ingest).await;
    worker.stop().await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_deactivated_for_a_while_is_hidden_for_that_while() {
    let Some(world) = World::start(1).await else { return };
    // Read without a relay between: the source itself is the account's host.
    let stage = Stage::enforcing(&world).await.directly(&world.addresses.servers[0]);
    let (ingest, worker) = (stage.ingest(), stage.worker("w-1"));
    let alice = world.account(0, "alice").await;
    world.post(&alice, "before").await;
    world.tell("deactivate", json!({"did": alice.did})).await;
    let deactivated = (Some(false), Some("deactivated".to_owned()));
    eventually("it is hidden", async || stage.status(&alice).await == deactivated).await;
    world.tell("activate", json!({"did": alice.did})).await;
    eventually("it is there again", async || stage.is_active(&alice).await).await;
    let post = world.post(&alice, "after").await;
    eventually("the last post is a row", async || {
        records::rows(&stage.rig, &alice).await.iter().any(|(uri, _)| *uri == post)
    })
    .await;
    stage.rig.settled().await;
    records::assert_rows_are_those_of(&world, &stage.rig, &alice).await;
    stage.assert_nothing_failed().await;
    stage.assert_proven(&ingest).await;
    worker.stop().await;
    ingest.stop().await;
}
