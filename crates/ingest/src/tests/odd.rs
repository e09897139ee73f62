//! Hosts, and others in the same Redis, that behave oddly.

use fred::interfaces::LuaInterface;
use penstock_core::live::Head;

use super::*;
use crate::servers::Servers;
use crate::stream::lease::Lease;
use crate::watchdog::Watchdog;

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_a_relay_begins_where_it_was_left() {
    let whole = frames(&replay(200));
    let (first, asked) = scripted(vec![(whole[..100].to_vec(), true), (whole[100..].to_vec(), false)]).await;
    let relay = penstock_replay::Settings { start_seq: Some(7_001), ..replay(60) };
    let relay = penstock_replay::bind(relay).await.unwrap();
    let (second, handle) = (relay.local_addr(), relay.handle());
    tokio::spawn(relay.run(CancellationToken::new()));
    let mut rig = Rig::with(TestRedis::start().await.unwrap(), &format!("ws://{first},ws://{second}")).await;
    rig.set("relay.failoverAfter", "1");
    let running = rig.start();
    rig.reaches(7_060).await;
    handle.inject(penstock_replay::Fault::Refuse(Duration::from_secs(60))).await.unwrap();
    rig.reaches(200).await;
    running.stop().await;
    assert_eq!(asked.lock().unwrap()[..2], ["cursor=0", "cursor=100"]);
    let left: Head = serde_json::from_str(&rig.state(&format!("standby:{second}")).await.unwrap()).unwrap();
    assert_eq!(left.seq, 7_060);
    let other = frames(&penstock_replay::Settings { start_seq: Some(7_001), ..replay(60) });
    rig.holds_exactly(&[&whole[..100], &other[..], &whole[100..]].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_too_large_to_be_read_is_passed_over_the_third_time() {
    let whole = frames(&replay(10));
    let huge = Bytes::from(vec![0xa2; 16_000_000]);
    let script = |from: usize| {
        let mut frames = whole[from..6].to_vec();
        frames.push(huge.clone());
        frames.extend_from_slice(&whole[6..]);
        (frames, false)
    };
    let (address, asked) = scripted(vec![script(0), script(5), script(5)]).await;
    let rig = Rig::new(address).await;
    let running = rig.start();
    rig.reaches(10).await;
    eventually("the loss", async || rig.state("dataLoss").await.as_deref() == Some("1")).await;
    assert_eq!(running.count("penstock_ingest_frames_refused_total{reason=\"oversized\"}"), 3);
    running.stop().await;
    rig.holds_exactly(&whole).await;
    assert_eq!(*asked.lock().unwrap(), ["cursor=0", "cursor=5", "cursor=5"]);
    let letters: Vec<(String, Vec<(String, String)>)> =
        rig.client.xrange("firehose:dead-letters:raw", "-", "+", None).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].1[1].1, "");
    assert!(letters[0].1[5].1.contains("16000000 bytes"), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_the_cursor_that_goes_on_is_not_fought() {
    let replay = penstock_replay::Settings { rate: Rate::PerSecond(1_000.try_into().unwrap()), ..replay(3_000) };
    let rig = Rig::new(serve(replay).await).await;
    let running = rig.start();
    eventually("events", async || running.progress.published() > 100).await;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        let _: () = rig.client.set("firehose:python_cursor", "7", None, None, false).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Each pause may double the one before, half a second the first.
    let refusals = running.count("penstock_ingest_publishes_refused_total{reason=\"cursor\"}");
    assert!((1..=15).contains(&refusals), "{refusals}");
    rig.reaches(3_000).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_that_stands_still_gives_the_lease_up() {
    let redis = TestRedis::start().await.unwrap();
    let rig = Rig::with(redis, "ws://127.0.0.1:1").await;
    let (health, cancel) = (Health::new(), CancellationToken::new());
    let time = Duration::from_millis(300);
    let lease = Lease::acquire(
        &rig.client,
        "lease".to_owned(),
        time,
        &Servers::new(&load(&rig.settings)),
        &Health::new().check("redis"),
        &cancel,
    )
    .await
    .unwrap();
    let watchdog = Watchdog::new(&health, Duration::from_millis(600));
    let keeping = tokio::time::timeout(Duration::from_secs(20), lease.keep(&watchdog)).await;
    assert!(keeping.is_ok(), "the lease was kept");
    eventually("the end of the lease", async || !rig.client.exists::<bool, _>("lease").await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trimming_that_fails_is_counted_while_it_lasts() {
    let rig = Rig::with(TestRedis::start().await.unwrap(), "ws://127.0.0.1:1").await;
    let running = rig.start();
    eventually("the lease", async || running.count("penstock_ingest_lease_held") == 1).await;
    let broken = "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'no stream')";
    let _: fred::types::Value = rig.client.eval(broken, vec!["firehose:events"], Vec::<String>::new()).await.unwrap();
    eventually("failures", async || running.count("penstock_ingest_trim_failures_total") >= 3).await;
    running.stop().await;
}
