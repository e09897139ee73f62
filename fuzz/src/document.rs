//! DID documents: what is taken from one is plain, stands in it, and is taken again from a document with nothing else in it.

use penstock_identity::{Document, LARGEST};
use serde_json::{Value, json};

/// Whose document it is.
const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

/// Reads a document and checks what it says.
pub fn document(input: &[u8]) {
    let document = match Document::parse(DID, input) {
        Ok(document) => document,
        Err(error) => {
            assert!(error.to_string().len() < 80, "{error}");
            // A second reader finds the reason too.
            let value: Option<Value> = serde_json::from_slice(input).ok();
            let is_own = value.is_some_and(|value| value.get("id").and_then(Value::as_str) == Some(DID));
            assert!(!is_own || input.len() > LARGEST, "{error}");
            return;
        }
    };
    if let Some(host) = &document.host {
        let rest = host.strip_prefix("https://").or_else(|| host.strip_prefix("http://")).expect("a scheme");
        assert!(!rest.is_empty() && !rest.contains(['/', '?', '#', '@', '\\', ' ']), "{host}");
        assert!(host.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()), "{host}");
    }
    if let Some(handle) = &document.handle {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        assert!(handle.len() <= 253 && handle.contains('.') && handle.bytes().all(plain), "{handle}");
    }
    let again = json!({
        "id": DID,
        "alsoKnownAs": document.handle.iter().map(|handle| format!("at://{handle}")).collect::<Vec<_>>(),
        "verificationMethod": document.key.iter().map(|key| {
            json!({"id": "#atproto", "type": "Multikey", "publicKeyMultibase": key.to_string()})
        }).collect::<Vec<_>>(),
        "service": document.host.iter().map(|host| {
            json!({"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": host})
        }).collect::<Vec<_>>(),
    });
    assert_eq!(Document::parse(DID, again.to_string().as_bytes()).as_ref(), Ok(&document));
}
