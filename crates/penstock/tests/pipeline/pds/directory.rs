//! The directory goes, and comes back.

use crate::rig::eventually;

use super::records;
use super::stage::Stage;
use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn without_the_directory_commits_of_unknown_accounts_are_held_and_of_known_ones_go_on() {
    let Some(world) = World::start(1).await else { return };
    let stage = Stage::enforcing(&world).await;
    let alice = world.account(0, "alice").await;
    world.post(&alice, "nobody knows her key yet").await;
    world.relayed().await;
    world.directory(false).await;
    let (ingest, worker) = (stage.ingest(), stage.worker("w-1"));
    ingest.says("holding events until the keys of their accounts can be resolved").await;
    assert_eq!(records::rows(&stage.rig, &alice).await, [], "rows of an account whose key is not known");

    world.directory(true).await;
    stage.caught_up(&world).await;
    records::assert_rows_are_those_of(&world, &stage.rig, &alice).await;

    // Her key is known now.
    world.directory(false).await;
    world.post(&alice, "all know her key").await;
    stage.caught_up(&world).await;
    records::assert_rows_are_those_of(&world, &stage.rig, &alice).await;
    stage.assert_nothing_failed().await;
    stage.assert_proven(&ingest).await;
    worker.stop().await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_directory_commits_pass_unproven_where_that_is_set() {
    let Some(world) = World::start(1).await else { return };
    let mut stage = Stage::enforcing(&world).await;
    stage.set("PENSTOCK_VERIFY_UNRESOLVED", "pass");
    let alice = world.account(0, "alice").await;
    world.post(&alice, "nobody knows her key").await;
    world.relayed().await;
    world.directory(false).await;
    let (ingest, worker) = (stage.ingest(), stage.worker("w-1"));
    stage.caught_up(&world).await;
    records::assert_rows_are_those_of(&world, &stage.rig, &alice).await;
    assert!(stage.verified(&ingest, "unresolved").await > 0.0, "commits that were not proven are counted");

    world.directory(true).await;
    let before = stage.verified(&ingest, "passed").await;
    eventually("commits are proven again", async || {
        world.post(&alice, "her key can be had again").await;
        stage.caught_up(&world).await;
        stage.verified(&ingest, "passed").await > before
    })
    .await;
    records::assert_rows_are_those_of(&world, &stage.rig, &alice).await;
    stage.assert_nothing_failed().await;
    worker.stop().await;
    ingest.stop().await;
}
