//! Accounts that write, and change their keys meanwhile.

use serde_json::json;

use super::records;
use super::stage::Stage;
use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_commit_of_real_servers_verifies_through_a_change_of_key() {
    let Some(world) = World::start(2).await else { return };
    let stage = Stage::enforcing(&world).await;
    let (ingest, worker) = (stage.ingest(), stage.worker("w-1"));
    let alice = world.account(0, "alice").await;
    let bob = world.account(1, "bob").await;
    let post = world.post(&alice, "before").await;
    records::of_every_kind(&world, &bob, &alice, &post).await;
    // What was signed before is read before: a backlog would be held against a key that is not its own.
    stage.caught_up(&world).await;
    // Their commits come between those of the others.
    world.tell("rotate_key", json!({"did": alice.did})).await;
    world.post(&bob, "between").await;
    records::of_every_kind(&world, &alice, &bob, &post).await;
    stage.caught_up(&world).await;
    world.tell("rotate_key", json!({"did": bob.did, "announced": true})).await;
    for number in 0..5 {
        world.post(&alice, &format!("alice {number}")).await;
        world.post(&bob, &format!("bob {number}")).await;
    }
    stage.caught_up(&world).await;
    // First: it says why rows are not there.
    stage.assert_nothing_failed().await;
    stage.assert_proven(&ingest).await;
    for account in [&alice, &bob] {
        records::assert_rows_are_those_of(&world, &stage.rig, account).await;
        // An `#identity` without a handle, as a change of key sends it, says nothing of the handle.
        stage.shows_handle(account, &account.handle).await;
    }
    worker.stop().await;
    ingest.stop().await;
}
