//! Frames whose envelope is not canonical: read all the same, and as the canonical one is.

use ciborium::Value as Cbor;
use penstock_wire::{Frame, FrameError, Limits, decode};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::fixtures;

/// Writes a value in some way that means the same: keys in any order, heads of any width, lengths known or not.
fn write(out: &mut Vec<u8>, value: &Cbor, rng: &mut StdRng) {
    let open = |out: &mut Vec<u8>, major: u8, len: usize, rng: &mut StdRng| {
        let indefinite = major > 3 && rng.random_bool(0.3);
        if indefinite {
            out.push(major << 5 | 31);
        } else {
            head(out, major, len as u64, rng);
        }
        indefinite
    };
    match value {
        Cbor::Integer(value) => match u64::try_from(i128::from(*value)) {
            Ok(value) => head(out, 0, value, rng),
            Err(_) => head(out, 1, u64::try_from(-1 - i128::from(*value)).unwrap(), rng),
        },
        Cbor::Bytes(bytes) => {
            head(out, 2, bytes.len() as u64, rng);
            out.extend_from_slice(bytes);
        }
        Cbor::Text(text) => {
            head(out, 3, text.len() as u64, rng);
            out.extend_from_slice(text.as_bytes());
        }
        Cbor::Array(items) => {
            let indefinite = open(out, 4, items.len(), rng);
            items.iter().for_each(|item| write(out, item, rng));
            out.extend(indefinite.then_some(0xFF));
        }
        Cbor::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.shuffle(rng);
            let indefinite = open(out, 5, entries.len(), rng);
            for (key, value) in entries {
                write(out, key, rng);
                write(out, value, rng);
            }
            out.extend(indefinite.then_some(0xFF));
        }
        Cbor::Tag(tag, inner) => {
            head(out, 6, *tag, rng);
            write(out, inner, rng);
        }
        Cbor::Bool(value) => out.push(if *value { 0xF5 } else { 0xF4 }),
        Cbor::Null => out.push(0xF6),
        other => panic!("{other:?} is in no frame"),
    }
}

fn head(out: &mut Vec<u8>, major: u8, value: u64, rng: &mut StdRng) {
    let least = match value {
        0..=23 => 0,
        24..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000..=0xFFFF_FFFF => 3,
        _ => 4,
    };
    match rng.random_range(least..=4) {
        0 => out.push(major << 5 | value as u8),
        width => {
            out.push(major << 5 | (23 + width as u8));
            out.extend_from_slice(&value.to_be_bytes()[8 - (1 << (width - 1))..]);
        }
    }
}

/// Splits a frame into its two values.
fn objects(frame: &[u8]) -> [Cbor; 2] {
    let mut rest = frame;
    let header = ciborium::from_reader(&mut rest).unwrap();
    [header, ciborium::from_reader(&mut rest).unwrap()]
}

#[test]
fn every_frame_means_the_same_however_its_envelope_is_written() {
    let mut rng = StdRng::seed_from_u64(5);
    for (set, frames) in fixtures::sets() {
        for (index, frame) in frames.iter().enumerate() {
            let mut again = Vec::new();
            objects(frame).iter().for_each(|object| write(&mut again, object, &mut rng));
            let (said, meant) = (decode(&again, &Limits::default()), decode(frame, &Limits::default()));
            assert!(said == meant && said.is_ok(), "{set} {index}");
            // And cut anywhere it is no frame.
            let cut = rng.random_range(0..again.len());
            let answer = decode(&again[..cut], &Limits::default());
            assert!(matches!(answer, Err(FrameError::Unreadable { .. })), "{set} {index} cut at {cut}");
        }
    }
}

#[test]
fn what_is_said_twice_is_believed_neither_time() {
    for (set, frames) in fixtures::sets() {
        for (index, frame) in frames.iter().enumerate().step_by(7) {
            let [header, body] = objects(frame);
            let Cbor::Map(entries) = &body else { panic!("a map") };
            for (name, value) in entries {
                let mut twice = entries.clone();
                twice.push((name.clone(), value.clone()));
                let mut again = Vec::new();
                ciborium::into_writer(&header, &mut again).unwrap();
                ciborium::into_writer(&Cbor::Map(twice), &mut again).unwrap();
                let name = name.as_text().unwrap();
                match (name, decode(&again, &Limits::default())) {
                    ("seq", Err(FrameError::Unreadable { .. })) => {}
                    ("repo" | "did" | "rev" | "commit" | "blocks" | "ops" | "active", Err(FrameError::Bad(bad))) => {
                        assert!(bad.to_string().contains(&format!("{name} stands twice")), "{bad}");
                    }
                    ("error" | "name", Err(FrameError::Unreadable { .. })) => {}
                    // What may be absent is as good as absent.
                    ("time" | "since" | "tooBig" | "handle" | "status" | "message", Ok(_)) => {}
                    // And what is not read does not matter.
                    ("rebase" | "blobs" | "prevData", Ok(answer)) => {
                        assert_eq!(Ok(answer), decode(frame, &Limits::default()));
                    }
                    (name, answer) => panic!("{set} {index} {name}: {answer:?}"),
                }
            }
        }
    }
}

#[test]
fn an_unknown_field_may_be_as_deep_as_it_likes() {
    for (_, frames) in fixtures::sets() {
        let Some(frame) = frames.iter().find(|frame| matches!(decode(frame, &Limits::default()), Ok(Frame::Event(_))))
        else {
            continue;
        };
        let [header, body] = objects(frame);
        let Cbor::Map(entries) = body else { panic!("a map") };
        let mut again = Vec::new();
        ciborium::into_writer(&header, &mut again).unwrap();
        head(&mut again, 5, entries.len() as u64 + 1, &mut StdRng::seed_from_u64(6));
        for (key, value) in &entries {
            ciborium::into_writer(key, &mut again).unwrap();
            ciborium::into_writer(value, &mut again).unwrap();
        }
        again.extend_from_slice(b"\x67novelty");
        again.resize(again.len() + 100_000, 0x81);
        again.push(0xF6);
        assert_eq!(decode(&again, &Limits::default()), decode(frame, &Limits::default()));
    }
}
