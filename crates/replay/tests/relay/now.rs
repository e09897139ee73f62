//! Events whose times are those at which they become live.

use std::collections::HashMap;
use std::num::NonZeroU32;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use penstock_replay::{Error, Rate, Settings, Stretch, bind, frames};

use crate::checker::{Event, Mapping, decode};
use crate::client::{start, take};

/// Events a second: one every 2 ms.
const RATE: u32 = 500;
const BACKLOG: u64 = 700;

fn live(since: Timestamp) -> Settings {
    let rate = Rate::PerSecond(NonZeroU32::new(RATE).unwrap());
    Settings { rate, backlog: BACKLOG, live_since: Some(since), total: Some(3 * 583 + 3000), ..Settings::default() }
}

fn time(event: &Event) -> Timestamp {
    event.time().parse().unwrap()
}

fn micros(rev: &str) -> i64 {
    let digit = |char| "234567abcdefghijklmnopqrstuvwxyz".find(char).unwrap() as i64;
    rev.chars().fold(0, |tid, char| tid << 5 | digit(char)) >> 10
}

#[test]
fn every_event_bears_the_time_at_which_it_becomes_live() {
    let since: Timestamp = "2031-05-06T07:08:09Z".parse().unwrap();
    let plain: Vec<Event> = frames(&Settings::default()).unwrap().take(583).map(|frame| decode(&frame)).collect();
    let served: Vec<Event> = frames(&live(since)).unwrap().map(|frame| decode(&frame)).collect();
    for (events, again) in served.chunks_exact(583).zip([false, true, true]) {
        let mut mapping = Mapping::of_live_times();
        plain.iter().zip(events).for_each(|(plain, event)| mapping.learn(plain, event));
        plain.iter().zip(events).for_each(|(plain, event)| mapping.check(plain, event));
        assert_eq!(mapping.dids.iter().any(|(before, after)| before != after), again);
    }
    let mut revs: HashMap<String, String> = HashMap::new();
    let mut records = 0;
    for (position, event) in (0..).zip(&served) {
        event.assert_whole();
        let live = since + SignedDuration::from_millis(2 * (position - BACKLOG as i64));
        assert_eq!(time(event), live, "position {position}");
        if let Some(rev) = event.rev().filter(|_| event.kind == "#commit") {
            assert!((micros(&rev) - live.as_microsecond()).abs() < 2_000, "position {position}: {rev} at {live}");
            let before = revs.insert(event.did(), rev.clone());
            assert!(before.is_none_or(|before| before < rev), "position {position}: a rev twice, or going back");
        }
        for created in event.blocks.iter().filter_map(|(_, block)| created_at(block)) {
            // In a commit that updates or deletes there are blocks of earlier ones too.
            assert!(
                created <= live && created >= live - SignedDuration::from_secs(2),
                "position {position}: {created}"
            );
            records += 1;
        }
    }
    assert!(records > 1000, "{records} records were looked at");
}

/// The one record of the recording that was made "yesterday" stays so.
fn created_at(block: &ciborium::Value) -> Option<Timestamp> {
    let (_, value) = block.as_map()?.iter().find(|(key, _)| key.as_text() == Some("createdAt"))?;
    value.as_text()?.parse().ok()
}

#[test]
fn what_was_served_before_is_served_again_as_it_was_and_the_rest_of_its_loop_follows() {
    let (first, second): (Timestamp, Timestamp) =
        ("2031-05-06T07:08:09Z".parse().unwrap(), "2031-06-01T00:00:00Z".parse().unwrap());
    let before = live(first);
    // In the middle of a loop.
    let backlog = 583 + 300;
    let Rate::PerSecond(rate) = before.rate else { panic!("no rate") };
    let lived = vec![Stretch { from: BACKLOG, since: first, rate }];
    let after = Settings { live_since: Some(second), lived, backlog, ..before.clone() };
    let events = |settings: &Settings| -> Vec<Event> {
        frames(settings).unwrap().take(3 * 583).map(|frame| decode(&frame)).collect()
    };
    let (before, after) = (events(&before), events(&after));
    let told = |event: &Event| (event.seq(), event.did(), event.time(), event.rev());
    let backlog = backlog as usize;
    assert!(before[..backlog].iter().map(told).eq(after[..backlog].iter().map(told)));
    assert_eq!(time(&after[backlog]), second);
    let mut revs: HashMap<String, String> = HashMap::new();
    for event in after.iter().filter(|event| event.kind == "#commit") {
        event.assert_whole();
        let rev = event.rev().unwrap();
        let before = revs.insert(event.did(), rev.clone());
        assert!(before.is_none_or(|before| before < rev), "a rev twice, or going back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_gets_has_just_happened() {
    let since = Timestamp::now() - SignedDuration::from_secs(3);
    let settings = live(since);
    let model: Vec<Bytes> = frames(&settings).unwrap().collect();
    let relay = start(settings).await;
    // Three seconds of it are there, since it was to be live for as long.
    let mut client = relay.subscribe("?cursor=0").await;
    let there = take(&mut client, BACKLOG as usize + 1_300).await;
    assert!(there == model[..there.len()]);
    let mut client = relay.subscribe("").await;
    if let Some(frame) = take(&mut client, 1).await.first() {
        let age = Timestamp::now().duration_since(time(&decode(frame)));
        assert!(!age.is_negative() && age < SignedDuration::from_secs(1), "{age} old");
    }
}

#[tokio::test]
async fn live_times_without_a_rate_are_refused_by_name() {
    let refused = bind(Settings { rate: Rate::Unlimited, ..live(Timestamp::now()) }).await.unwrap_err();
    assert!(matches!(refused, Error::Setting { field: "rate", .. }), "{refused}");
}
