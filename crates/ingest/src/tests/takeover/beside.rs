//! What another program writes between two batches of ours.

use super::*;

/// Serves the first frames on one address; then the place on a second one, which is not served yet, is the first's.
async fn moved_to_a_mute_relay(first: &[Bytes]) -> (Rig, TcpListener) {
    let (address, _) = scripted(vec![(first.to_vec(), false)]).await;
    let rig = Rig::new(address).await;
    rig.group().await;
    let running = rig.start();
    rig.reaches(seqs(first).last().copied().unwrap()).await;
    rig.acknowledge_new().await;
    eventually("the trim", async || rig.length().await == 0).await;
    running.stop().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (rig.moved_to(address).await, listener)
}

/// Lets several trims go by.
async fn trims() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_program_wrote_while_our_relay_was_away_is_not_trimmed_before_it_is_gone_by() {
    let whole = frames(&replay(1_000));
    let (rig, listener) = moved_to_a_mute_relay(&whole[..100]).await;
    let running = rig.start();
    eventually("the lease", async || running.count("penstock_ingest_lease_held") == 1).await;
    trims().await;
    // The AppView's ingestion writes on for a while; its workers keep up with it.
    rig.add(&whole[100..600]).await;
    rig.acknowledge_new().await;
    trims().await;
    assert_eq!(rig.numbers().await, seqs(&whole[100..600]));
    let asked = scripted_on(listener, vec![(whole[99..].to_vec(), false), (whole[599..].to_vec(), false)]);
    rig.reaches(1_000).await;
    running.stop().await;
    assert_eq!(*asked.lock().unwrap(), ["cursor=99", "cursor=599"]);
    assert_eq!(rig.numbers().await, seqs(&whole[600..]), "nothing is written twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_quiet_relay_a_backfill_is_trimmed_and_a_second_producer_is_not() {
    let whole = frames(&replay(300));
    let (rig, _listener) = moved_to_a_mute_relay(&whole[..100]).await;
    let running = rig.start();
    for _ in 0..50 {
        rig.add_fields(&[("seq", "")]).await;
    }
    rig.acknowledge_new().await;
    eventually("the backfill is trimmed", async || rig.length().await == 0).await;
    for _ in 0..10 {
        rig.add_fields(&[("seq", "")]).await;
    }
    rig.add(&whole[100..200]).await;
    rig.acknowledge_new().await;
    eventually("what stands before it is trimmed", async || rig.length().await == seqs(&whole[100..200]).len() as u64)
        .await;
    trims().await;
    assert_eq!(rig.numbers().await, seqs(&whole[100..200]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_second_producer_filled_is_taken_over_although_reading_is_paused() {
    let whole = frames(&replay(1_000));
    let (address, asked) = scripted(vec![(whole[..100].to_vec(), false), (whole[499..].to_vec(), false)]).await;
    let mut rig = Rig::new(address).await;
    rig.set("redis.maxStreamLen", "400");
    rig.group().await;
    let running = rig.start();
    rig.reaches(100).await;
    rig.add(&whole[100..500]).await;
    eventually("the pause", async || rig.state("paused").await.as_deref() == Some("1")).await;
    rig.acknowledge_new().await;
    eventually("the next connection", async || asked.lock().unwrap().len() == 2).await;
    assert_eq!(asked.lock().unwrap()[1], "cursor=499");
    eventually("what follows", async || rig.numbers().await.first() == seqs(&whole[500..]).first()).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_gone_is_replaced_by_what_we_noted_of_it() {
    let whole = frames(&replay(300));
    let (mut rig, listener) = moved_to_a_mute_relay(&whole[..100]).await;
    rig.set("relay.start", "live");
    let _: u64 = rig.client.del("firehose:python_cursor").await.unwrap();
    rig.add_fields(&[("seq", "")]).await;
    let asked = scripted_on(listener, vec![(whole[99..].to_vec(), false)]);
    let running = rig.start();
    rig.reaches(300).await;
    running.stop().await;
    assert_eq!(*asked.lock().unwrap(), ["cursor=99"]);
    assert_eq!(rig.numbers().await, seqs(&whole[100..]));
}
