//! Records that real servers sent: the bundled recording, and another where it is at hand.

use std::path::Path;

use super::*;

const BUNDLED: &str = "../replay/recording/pds.oracle.jsonl";

/// Reads the events of a recording: DID, rev, and per op action, path, CID and record. Where there is none: nothing.
fn events(recording: &str) -> Vec<Entry> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(recording);
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    let text_of = |value: &Value| value.as_str().map(str::to_owned);
    let mut order = 0;
    let mut event = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        // One op a line in the one, all of a commit in the other.
        let (rev, ops) = match (&line["commit"], &line["ops"]) {
            (commit @ Value::Object(_), _) => (&commit["rev"], vec![commit]),
            (_, Value::Array(ops)) => (&line["rev"], ops.iter().collect()),
            _ => return None,
        };
        let ops = ops.into_iter().map(|op| {
            let whole = op["path"].as_str().and_then(|path| path.split_once('/'));
            let (collection, rkey) =
                whole.unwrap_or_else(|| (op["collection"].as_str().unwrap(), op["rkey"].as_str().unwrap()));
            Op {
                action: op["action"].as_str().or(op["operation"].as_str()).unwrap().parse().unwrap(),
                collection: collection.to_owned(),
                rkey: rkey.to_owned(),
                cid: text_of(&op["cid"]),
                record: Some(op["record"].clone()).filter(|record| !record.is_null()),
            }
        });
        order += 1;
        Some(commit(order, line["did"].as_str().unwrap(), rev.as_str(), ops.collect()))
    };
    text.lines().filter_map(&mut event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_that_real_servers_sent_has_a_place() {
    for recording in [BUNDLED, "../../../shared/fixtures/bsky-2026-07-04/expected_v1.jsonl"] {
        let db = Db::new().await;
        let entries = events(recording);
        for batch in entries.chunks(100) {
            assert_eq!(db.apply(batch).await.rejected, [], "{recording}");
        }
        let state = db.state().await;
        for batch in entries.chunks(7).rev() {
            db.apply(batch).await;
        }
        assert!(db.state().await == state, "{recording}: a second time changes something");
    }
}

/// One event in 583 of the bundled recording has a URI that no column takes: it was the first dead letter that anybody saw.
#[tokio::test(flavor = "multi_thread")]
async fn the_bundled_recording_makes_no_dead_letter() {
    let db = Db::new().await;
    let entries = events(BUNDLED);
    let ops: usize = entries
        .iter()
        .map(|entry| matches!(&entry.event, Event::Commit(commit) if !commit.ops.is_empty()) as usize)
        .sum();
    assert!(ops > 400, "{ops} commits with ops");
    assert_eq!(db.apply(&entries).await.rejected, []);
    let kept =
        db.rows("SELECT length(uri) > 512 AS long, record->>'$type' = collection AS typed FROM penstock.records").await;
    assert_eq!(kept, [json!({"long": true, "typed": true})]);
}
