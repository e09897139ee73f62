//! Every frame at hand against what others made of it.

use std::collections::HashMap;

use penstock_wire::{Event, Frame, Limits, decode};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::{fixtures, second};

fn event(frame: &[u8]) -> Event {
    match decode(frame, &Limits::default()).unwrap() {
        Frame::Event(event) => event,
        other => panic!("not an event: {other:?}"),
    }
}

fn lines(bytes: &[u8]) -> Vec<Json> {
    str::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Picks fields; those that are absent become null.
fn pick(from: &Json, keys: &[&str]) -> Json {
    keys.iter().map(|key| ((*key).to_owned(), from[*key].clone())).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn every_frame_of_the_pds_is_what_its_oracle_says() {
    let bytes = fixtures::pds("frames.bin");
    let frames = fixtures::frames(&bytes);
    let oracle = lines(&fixtures::pds("oracle.jsonl"));
    assert_eq!(frames.len(), 583);
    assert_eq!(oracle.len(), frames.len());
    for (frame, line) in frames.iter().zip(&oracle) {
        let at = line["at"].as_u64().unwrap() as usize + 4;
        assert_eq!(&bytes[at..at + line["len"].as_u64().unwrap() as usize], frame);
        assert_eq!(data_encoding::HEXLOWER.encode(&Sha256::digest(frame)), line["sha256"], "frame {}", line["n"]);
        assert_frame(frame, line);
    }
}

fn assert_frame(frame: &[u8], line: &Json) {
    let time = |at: Option<jiff::Timestamp>| at.map(|at| format!("{at:.3}"));
    if line["type"] == "sync" {
        let Ok(Frame::Sync(sync)) = decode(frame, &Limits::default()) else { panic!("frame {} is a sync", line["n"]) };
        let said = json!({"seq": sync.seq, "did": sync.did, "rev": sync.rev, "time": time(sync.time)});
        assert_eq!(said, pick(line, &["seq", "did", "rev", "time"]));
        return;
    }
    let event = event(frame);
    let data: Json = serde_json::from_slice(&event.data).unwrap();
    let said = json!({
        "type": event.kind.as_str(), "t": event.kind.frame_type(), "seq": event.seq, "did": event.did,
        "time": time(event.time), "rev": event.rev, "since": event.since,
    });
    assert_eq!(said, pick(line, &["type", "t", "seq", "did", "time", "rev", "since"]));
    let expected = match event.kind.as_str() {
        "identity" => pick(line, &["did", "handle", "time"]),
        "account" => pick(line, &["did", "active", "status", "time"]),
        _ => {
            let mut expected = pick(line, &["rev", "time", "commit", "since"]);
            expected["repo"] = line["did"].clone();
            expected["ops"] = line["ops"].as_array().unwrap().iter().map(oracle_op).collect();
            assert_eq!(event.ops, line["ops"].as_array().unwrap().len());
            expected
        }
    };
    assert_eq!(data, expected, "frame {}", line["n"]);
}

fn oracle_op(op: &Json) -> Json {
    let mut expected = pick(op, &["action", "path"]);
    if op["action"] != "delete" {
        expected["cid"] = op["cid"].clone();
        if let Some(record) = op.get("record") {
            expected["record"] = record.clone();
        }
    }
    expected
}

#[test]
fn every_event_of_the_public_relay_is_what_another_decoder_served() {
    let (Some(frames), Some(expected)) =
        (fixtures::shared("bsky-2026-07-04/frames.bin"), fixtures::shared("bsky-2026-07-04/expected_v1.jsonl"))
    else {
        return;
    };
    let mut expected: HashMap<[String; 4], Json> = lines(&expected).iter().map(jetstream_event).collect();
    let all = expected.len();
    let mut seen = 0;
    for frame in fixtures::frames(&frames) {
        let event = event(&frame);
        let data: Json = serde_json::from_slice(&event.data).unwrap();
        let did = event.did.to_string();
        // Real people's posts: a failure names the sequence number and nothing else.
        if let Some(ops) = data["ops"].as_array() {
            for op in ops {
                let said =
                    json!({"operation": op["action"], "cid": op["cid"], "record": op["record"], "rev": data["rev"]});
                let path = op["path"].as_str().unwrap().to_owned();
                let key = [did.clone(), "commit".into(), event.rev.as_deref().unwrap().into(), path];
                assert!(expected.remove(&key).is_some_and(|want| want == said), "commit {}", event.seq);
                seen += 1;
            }
            continue;
        }
        let said = match event.kind.as_str() {
            "identity" => json!({"handle": data["handle"], "time": data["time"], "did": did}),
            _ => json!({"active": data["active"], "status": data["status"], "time": data["time"], "did": did}),
        };
        let key = [did, event.kind.as_str().into(), event.seq.to_string(), String::new()];
        assert!(expected.remove(&key).is_some_and(|want| want == said), "{} {}", event.kind.as_str(), event.seq);
        seen += 1;
    }
    assert_eq!((seen, expected.len()), (all, 0));
}

/// Names one event of the other decoder, and what it says.
fn jetstream_event(line: &Json) -> ([String; 4], Json) {
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let kind = text(&line["kind"]);
    let body = &line[&kind];
    match kind.as_str() {
        "commit" => (
            [
                text(&line["did"]),
                kind,
                text(&body["rev"]),
                format!("{}/{}", text(&body["collection"]), text(&body["rkey"])),
            ],
            pick(body, &["operation", "cid", "record", "rev"]),
        ),
        "identity" => (
            [text(&line["did"]), kind.clone(), body["seq"].to_string(), String::new()],
            pick(body, &["handle", "time", "did"]),
        ),
        _ => (
            [text(&line["did"]), kind.clone(), body["seq"].to_string(), String::new()],
            pick(body, &["active", "status", "time", "did"]),
        ),
    }
}

#[test]
fn the_second_decoder_agrees_on_every_frame() {
    for (set, frames) in fixtures::sets() {
        for (index, frame) in frames.iter().enumerate() {
            let answer = decode(frame, &Limits::default());
            assert!(answer.is_ok_and(|answer| second::agrees(frame, &answer)), "{set} {index}");
        }
    }
}

#[test]
fn frames_of_other_servers_are_read_as_they_are() {
    let [error, account, commit] = fixtures::EDGE.map(|name| fixtures::shared(&format!("edge/{name}")));
    let (Some(error), Some(account), Some(commit)) = (error, account, commit) else { return };
    let Frame::Error(error) = decode(&error, &Limits::default()).unwrap() else { panic!("an error frame") };
    assert_eq!((&*error.error, error.message), ("FutureCursor", None));

    let account = event(&account);
    assert_eq!(account.seq, 9_998_788_318);
    let at: jiff::Timestamp = "2026-02-24T14:05:20.5215469Z".parse().unwrap();
    assert_eq!(account.time, Some(at), "a time without a zone is UTC");
    let data: Json = serde_json::from_slice(&account.data).unwrap();
    let did = "did:plc:3n43gqf6a6nkrw355rsc6rtd";
    assert_eq!(data, json!({"did": did, "active": true, "status": null, "time": "2026-02-24T14:05:20.5215469Z"}));

    let commit = event(&commit);
    let data = String::from_utf8(commit.data.to_vec()).unwrap();
    let expected = concat!(
        r#"{"repo":"did:plc:jq3zvrb5ewg2qgup73qsouze","ops":[],"rev":"3mgdycfub2y22","time":"2026-03-05T15:47:54.716328Z","#,
        r#""commit":"bafyreibfndx6xdngz4xy7xwzbfyzfddtbawc726yitqp3vlxdjx637voce","since":null}"#
    );
    assert_eq!(data, expected, "an empty since is none");
    assert_eq!((commit.since, commit.ops), (None, 0));
}
