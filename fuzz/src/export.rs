//! Lines of the directory's export: what is told of an operation stands in the line, and a reader of JSON alone finds it there too.

use penstock_identity::export::{LONGEST_LINE, Operation, read_line};
use penstock_wire::Key;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Reads a line and checks what is told.
pub fn export(line: &[u8]) {
    let mut told = Vec::new();
    let read = read_line(line, |operation| told.push(operation));
    if let Err(error) = &read {
        let said = error.to_string();
        assert!(said.len() < 300 && !said.is_empty(), "{said}");
    }
    assert!(line.len() <= LONGEST_LINE || told.is_empty());
    for operation in told.iter().flatten() {
        check(operation);
    }
    let shape = serde_json::Deserializer::from_slice(line).into_iter::<IgnoredAny>().collect::<Result<Vec<_>, _>>();
    assert!(read.is_err() || shape.is_ok(), "what is no JSON was read");
    // Of fields that nobody reads the shape alone is checked, and not whether their texts are UTF-8 or their numbers small enough.
    let Ok(values) = serde_json::Deserializer::from_slice(line).into_iter().collect::<Result<Vec<Value>, _>>() else {
        return;
    };
    if read.is_ok() {
        assert_eq!(values.len(), told.len());
        values.iter().zip(&told).for_each(|(value, told)| compare(value, told.as_ref()));
    }
}

/// What is told can be told again by the plainest line that says it.
fn check(operation: &Operation) {
    let id = operation.did.strip_prefix("did:plc:").expect("only the directory's DIDs are told");
    assert!(id.len() == 24 && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')));
    let time = jiff::Timestamp::from_microsecond(operation.at).expect("a time that can be written");
    let said = match &operation.document {
        None => serde_json::json!({ "type": "plc_tombstone" }),
        Some(document) => serde_json::json!({
            "type": "plc_operation",
            "verificationMethods": document.key.map(|key| serde_json::json!({ "atproto": format!("did:key:{key}") })).unwrap_or_else(|| serde_json::json!({})),
            "alsoKnownAs": document.handle.iter().map(|handle| format!("at://{handle}")).collect::<Vec<_>>(),
            "services": document.host.as_ref().map(|host| serde_json::json!({ "atproto_pds": { "type": "AtprotoPersonalDataServer", "endpoint": host } })).unwrap_or_else(|| serde_json::json!({})),
        }),
    };
    let line =
        serde_json::json!({ "did": operation.did, "operation": said, "createdAt": time.to_string() }).to_string();
    let mut again = None;
    read_line(line.as_bytes(), |operation| again = operation).expect("a plain line");
    assert_eq!(again.as_ref(), Some(operation), "{line}");
}

/// Holds what was told against the values that stand in the line.
fn compare(value: &Value, told: Option<&Operation>) {
    assert_eq!(value.get("nullified").and_then(Value::as_bool).unwrap_or_default(), told.is_none());
    let Some(told) = told else { return };
    assert_eq!(value["did"].as_str(), Some(&*told.did));
    let operation = &value["operation"];
    assert_eq!(operation["type"] == "plc_tombstone", told.document.is_none());
    let Some(document) = &told.document else { return };
    let is_first = operation["type"] == "create";
    let key = if is_first { &operation["signingKey"] } else { &operation["verificationMethods"]["atproto"] };
    let key = key.as_str().filter(|key| key.starts_with("did:key:")).and_then(|key| Key::from_multikey(key).ok());
    assert_eq!(document.key, key);
    if let Some(handle) = &document.handle {
        let claims = |text: &Value| text.as_str().is_some_and(|text| text.to_ascii_lowercase().ends_with(&**handle));
        let mut names = operation["alsoKnownAs"].as_array().into_iter().flatten();
        assert!(if is_first { !operation["handle"].is_null() } else { names.any(claims) }, "{handle}");
    }
    if let Some(host) = &document.host {
        assert!(host.starts_with("https://") || host.starts_with("http://"), "{host}");
    }
}
