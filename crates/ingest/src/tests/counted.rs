//! What is counted beside the events: with the batch that passes them, or not at all.

use serde_json::Value as Json;

use super::*;
use crate::incidents::Incidents;
use crate::servers::Servers;
use crate::stream::batch::Batch;
use crate::stream::bulk::{Blocker, Bulk};
use crate::stream::error::PublishError;
use crate::stream::lease::Lease;
use crate::stream::publish::{Opening, Publisher};

async fn publisher(rig: &Rig, fence: &str) -> Publisher {
    let settings = load(&rig.settings);
    let (time, cancel) = (Duration::from_secs(60), CancellationToken::new());
    let _: u64 = rig.client.del(settings.keys.ingest_lease()).await.unwrap();
    let lease = Lease::acquire(
        &rig.client,
        settings.keys.ingest_lease(),
        time,
        &Servers::new(&settings),
        &Health::new().check("redis"),
        &cancel,
    )
    .await
    .unwrap();
    let opening = Opening { fence: fence.to_owned(), ..Opening::default() };
    Publisher::new(
        rig.client.clone(),
        lease,
        &settings,
        opening,
        tokio::sync::watch::channel(Bulk::Closed(Blocker::Unknown)).1,
    )
}

async fn counted(rig: &Rig) -> [Option<String>; 3] {
    [rig.state("gaps").await, rig.state("resets").await, rig.state("dataLoss").await]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_refused_batch_saw_is_not_counted() {
    let rig = Rig::with(TestRedis::start().await.unwrap(), "ws://127.0.0.1:1").await;
    let _: () = rig.client.set("firehose:python_cursor", "7", None, None, false).await.unwrap();
    let batch = || {
        let mut batch = Batch::new(Instant::now());
        batch.advance(9, None);
        batch.set_incidents(Incidents { gaps: 1, resets: 2, losses: 3 });
        batch
    };
    let mut stale = publisher(&rig, "6").await;
    stale.send(batch()).await;
    assert!(matches!(stale.next().await, Err(PublishError::Cursor { .. })));
    assert_eq!(counted(&rig).await, [None, None, None]);

    let mut right = publisher(&rig, "7").await;
    right.send(batch()).await;
    let (published, _) = right.next().await.unwrap();
    assert_eq!(published.incidents, Incidents { gaps: 1, resets: 2, losses: 3 });
    assert_eq!(counted(&rig).await, ["1", "2", "3"].map(|count| Some(count.to_owned())));

    // What somebody else made of a field holds up no event.
    let _: i64 = rig.client.hset("firehose:ingest:state", ("gaps", "many")).await.unwrap();
    right.send(batch()).await;
    right.next().await.unwrap();
    assert_eq!(counted(&rig).await, ["many", "4", "6"].map(|count| Some(count.to_owned())));
}

/// Serves so many connections the same frames, of which those before `from` are written after the first one.
fn again(frames: &[Bytes], from: usize, times: usize) -> Vec<(Vec<Bytes>, bool)> {
    let later = (frames[from..].to_vec(), false);
    [vec![(frames.to_vec(), false)], vec![later; times - 1]].concat()
}

async fn letters(rig: &Rig) -> Vec<HashMap<String, String>> {
    let found: Vec<(String, HashMap<String, String>)> =
        rig.client.xrange("firehose:dead-letters:raw", "-", "+", None).await.unwrap();
    found.into_iter().map(|(_, fields)| fields).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_unreadable_frames_in_a_row_are_each_set_aside_once() {
    let whole = frames(&replay(10));
    let noise = [Bytes::from_static(b"\xffnoise"), Bytes::from_static(b"\xa1other noise")];
    let served = [&whole[..6], &noise[..], &whole[6..]].concat();
    let (address, asked) = scripted(again(&served, 5, 5)).await;
    let rig = Rig::new(address).await;
    let running = rig.start();
    rig.reaches(10).await;
    running.stop().await;
    rig.holds_exactly(&whole).await;
    assert_eq!(asked.lock().unwrap().len(), 5);
    let said: Vec<_> = letters(&rig).await.iter().map(|letter| letter["data"].clone()).collect();
    assert_eq!(said, noise.map(|noise| data_encoding::BASE64.encode(&noise)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_different_unreadable_frames_do_not_stop_reading() {
    let whole = frames(&replay(10));
    let noise: Vec<Bytes> = (0..40_u8).map(|n| Bytes::from(vec![0xFF, n])).collect();
    let served = [&whole[..6], &noise[..], &whole[6..]].concat();
    let (address, asked) = scripted(again(&served, 5, 7)).await;
    let rig = Rig::new(address).await;
    let running = rig.start();
    rig.reaches(10).await;
    eventually("the letters", async || running.count("penstock_dead_letters_total{source=\"ingest\"}") == 40).await;
    running.stop().await;
    rig.holds_exactly(&whole).await;
    assert_eq!(asked.lock().unwrap().len(), 7);
    assert_eq!(letters(&rig).await.len(), 40);
}

/// The cursor does not move behind it, so that each connection, and each process, gets it again.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_quiet_host_a_frame_is_set_aside_and_lost_once() {
    let whole = frames(&replay(6));
    let huge = Bytes::from(vec![0xa2; 16_000_000]);
    let served = [&whole[..6], &[Bytes::from_static(b"\xffnoise"), huge][..]].concat();
    let (address, asked) = scripted(again(&served, 5, 20)).await;
    let mut rig = Rig::new(address).await;
    rig.set("relay.dataTimeout", "300ms");
    for _ in 0..2 {
        let before = asked.lock().unwrap().len();
        let running = rig.start();
        eventually("connections", async || asked.lock().unwrap().len() >= before + 8).await;
        running.stop().await;
    }
    let said: Vec<_> = letters(&rig).await.iter().map(|letter| letter["error"].clone()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(counted(&rig).await[2].as_deref(), Some("1"));
    rig.holds_exactly(&whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_sync_is_counted_and_not_lettered() {
    let whole = frames(&replay(583));
    let is_sync = |frame: &Bytes| matches!(penstock_wire::decode(frame, &Limits::default()), Ok(Frame::Sync(_)));
    let at = whole.iter().position(is_sync).unwrap();
    let mut served = whole.clone();
    let mut bad = whole[at].to_vec();
    let end = bad.len() - 120;
    bad[end] ^= 1;
    served[at] = bad.into();
    let (address, _) = scripted(vec![(served, false)]).await;
    let rig = Rig::new(address).await;
    let running = rig.start();
    rig.reaches(583).await;
    let text = running.metrics.encode();
    let refused: Vec<_> =
        text.lines().filter(|line| line.starts_with("penstock_ingest_frames_refused_total{")).collect();
    running.stop().await;
    assert!(refused.len() == 1 && refused[0].ends_with(" 1"), "{refused:?}");
    assert_eq!(letters(&rig).await.len(), 0);
}

/// A commit frame of which the block with a CID, told by the event's data, has a bit flipped.
pub(super) fn spoilt(frame: &Bytes, cid: impl Fn(&Json) -> Json) -> Vec<u8> {
    let data: Json = serde_json::from_slice(&events(std::slice::from_ref(frame))[0].data).unwrap();
    let text = cid(&data).as_str().unwrap()[1..].to_ascii_uppercase();
    let cid = data_encoding::BASE32_NOPAD.decode(text.as_bytes()).unwrap();
    // As a link it has a zero before it; before its block it has a length.
    let at = (1..frame.len()).find(|at| frame[*at..].starts_with(&cid) && frame[at - 1] != 0).unwrap();
    let mut frame = frame.to_vec();
    frame[at + 40] ^= 1;
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_another_hash_is_lettered_alone_and_its_op_is_written() {
    let whole = frames(&replay(100));
    let has_record = |frame: &&Bytes| events(std::slice::from_ref(*frame)).iter().any(|event| event.ops > 0);
    let good = whole.iter().find(has_record).unwrap();
    let [event] = &events(std::slice::from_ref(good))[..] else { panic!("an event") };
    let mut data: Json = serde_json::from_slice(&event.data).unwrap();
    let bad = Bytes::from(spoilt(good, |data| data["ops"][0]["cid"].clone()));
    let served = whole.iter().map(|frame| if frame == good { bad.clone() } else { frame.clone() }).collect();
    let (address, _) = scripted(vec![(served, false)]).await;
    let rig = Rig::new(address).await;
    let running = rig.start();
    rig.reaches(100).await;
    assert_eq!(running.count("penstock_ingest_parts_left_out_total{reason=\"block_hash\"}"), 1);
    assert_eq!(running.count("penstock_ingest_records_missing_total"), 1);
    running.stop().await;

    data["ops"][0].as_object_mut().unwrap().remove("record").unwrap();
    data["missing"] = 1.into();
    let entries = rig.entries().await;
    assert_eq!(entries.len(), events(&whole).len());
    let found = entries.iter().find(|entry| entry.3 == event.seq).unwrap();
    assert_eq!(serde_json::from_slice::<Json>(&found.2).unwrap(), data);
    let letters = letters(&rig).await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    let path = format!("at://{}/{}", data["repo"].as_str().unwrap(), data["ops"][0]["path"].as_str().unwrap());
    for part in
        [&*path, data["rev"].as_str().unwrap(), data["ops"][0]["cid"].as_str().unwrap(), "not what its cid says"]
    {
        assert!(letter["error"].contains(part), "{part}: {}", letter["error"]);
    }
    assert_eq!((&*letter["type"], &letter["seq"]), ("raw", &event.seq.to_string()));
    let block = data_encoding::BASE64.decode(letter["data"].as_bytes()).unwrap();
    assert!(bad.windows(block.len()).any(|window| window == block), "the block's own bytes");
}
