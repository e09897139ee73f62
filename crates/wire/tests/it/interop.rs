//! The data model fixtures of the atproto interop tests.

use data_encoding::BASE64_NOPAD;
use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use penstock_wire::{BadReason, Limits};
use serde_json::Value as Json;

use crate::crafted::{Commit, cid_of, encode, record_of};
use crate::{fixtures, second};

fn list(name: &str) -> Option<Vec<Json>> {
    fixtures::shared(&format!("interop/data-model/{name}")).map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

/// Encodes JSON as it stands: links and bytes become what they mean, if they are well formed.
fn to_ipld(json: &Json) -> Ipld {
    match json {
        Json::Null => Ipld::Null,
        Json::Bool(value) => Ipld::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Ipld::Integer(value.into()),
            (None, Some(value)) if value.fract() == 0.0 => Ipld::Integer(value as i128),
            (None, value) => Ipld::Float(value.unwrap()),
        },
        Json::String(text) => Ipld::String(text.clone()),
        Json::Array(items) => Ipld::List(items.iter().map(to_ipld).collect()),
        Json::Object(map) => match (map.len(), map.get("$link"), map.get("$bytes")) {
            (1, Some(Json::String(link)), _) if Cid::try_from(link.as_str()).is_ok() => {
                Ipld::Link(Cid::try_from(link.as_str()).unwrap())
            }
            (1, _, Some(Json::String(bytes))) => Ipld::Bytes(BASE64_NOPAD.decode(bytes.as_bytes()).unwrap()),
            _ => Ipld::Map(map.iter().map(|(key, value)| (key.clone(), to_ipld(value))).collect()),
        },
    }
}

#[test]
fn the_data_model_fixtures_are_decoded_to_their_json() {
    let Some(list) = list("data-model-fixtures.json") else { return };
    for fixture in list {
        let block = BASE64_NOPAD.decode(fixture["cbor_base64"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(cid_of(&block).to_string(), fixture["cid"]);
        assert_eq!(encode(&to_ipld(&fixture["json"])), block);
        assert_eq!(
            record_of(&Commit::of_block(block.clone()).frame(), &Limits::default()),
            Ok(fixture["json"].clone())
        );
        assert_eq!(second::to_json(&ciborium::from_reader(&block[..]).unwrap()), fixture["json"]);
    }
}

#[test]
fn what_the_data_model_allows_is_carried() {
    let Some(list) = list("data-model-valid.json") else { return };
    for fixture in list {
        let frame = Commit::of_block(encode(&to_ipld(&fixture["json"]))).frame();
        let record = record_of(&frame, &Limits::default()).unwrap();
        assert_eq!(to_ipld(&record), to_ipld(&fixture["json"]), "{}", fixture["note"]);
    }
}

/// Only the shape of the whole is refused: what a repo holds is carried, and lexicons are its server's business.
#[test]
fn of_what_the_data_model_forbids_only_a_record_that_is_no_map_is_refused() {
    let Some(list) = list("data-model-invalid.json") else { return };
    for fixture in list {
        let frame = Commit::of_block(encode(&to_ipld(&fixture["json"]))).frame();
        match record_of(&frame, &Limits::default()) {
            Ok(record) => assert_eq!(record, fixture["json"], "{}", fixture["note"]),
            Err(BadReason::Record { .. }) => assert_eq!(fixture["note"], "top-level not an object"),
            Err(other) => panic!("{}: {other}", fixture["note"]),
        }
    }
}
