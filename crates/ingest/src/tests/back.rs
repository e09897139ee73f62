//! A relay that was away and is back.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_back_is_read_although_it_was_away_for_long() {
    // On an address that no other test takes meanwhile.
    let address = TcpListener::bind("127.0.0.77:0").await.unwrap().local_addr().unwrap();
    let mut rig = Rig::new(address).await;
    // By these the first pause alone would take minutes, and later ones an hour.
    rig.set("relay.backoffMin", "5m");
    rig.set("relay.backoffMax", "1h");
    let running = rig.start();
    eventually("some tries in vain", async || {
        running.count(r#"penstock_ingest_reconnects_total{reason="connect"}"#) >= 5
    })
    .await;
    let frames = frames(&replay(20));
    let listener = TcpListener::bind(address).await.unwrap();
    scripted_on(listener, vec![(frames.clone(), false)]);
    rig.reaches(20).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
}
