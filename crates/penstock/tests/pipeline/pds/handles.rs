//! Handles that change, and handles that lead nowhere.

use serde_json::json;

use super::stage::Stage;
use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_handle_shows_and_one_that_leads_nowhere_is_invalid_until_it_leads_back() {
    let Some(world) = World::start(1).await else { return };
    let stage = Stage::enforcing(&world).await;
    let (ingest, worker) = (stage.ingest(), stage.worker("w-1"));
    let alice = world.account(0, "alice").await;
    stage.shows_handle(&alice, "alice.pds1.test").await;
    world.tell("change_handle", json!({"did": alice.did, "handle": "ally.pds1.test"})).await;
    stage.shows_handle(&alice, "ally.pds1.test").await;

    world.tell("withhold", json!({"handle": "ally.pds1.test", "withheld": true})).await;
    // Says that something changed, as a server does after any change of the document.
    world.tell("rotate_key", json!({"did": alice.did})).await;
    stage.shows_handle(&alice, "handle.invalid").await;
    world.tell("withhold", json!({"handle": "ally.pds1.test", "withheld": false})).await;
    stage.shows_handle(&alice, "ally.pds1.test").await;

    // The server gives a name that another account had to nobody without a word of the directory.
    let bob = world.account(0, "bob").await;
    world.tell("change_handle", json!({"did": bob.did, "handle": "alice.pds1.test"})).await;
    stage.shows_handle(&bob, "alice.pds1.test").await;
    stage.caught_up(&world).await;
    stage.shows_handle(&alice, "ally.pds1.test").await;
    stage.assert_nothing_failed().await;
    stage.assert_proven(&ingest).await;
    worker.stop().await;
    ingest.stop().await;
}
