//! What a DID document says of an account: its signing key, its host, and the handle it claims.
//!
//! Anyone can write anything into one. Odd things beside what is used are ignored; what is used is used only as the
//! specification has it. <https://atproto.com/specs/did>

use penstock_wire::Key;
use serde_json::{Map, Value};
use thiserror::Error;
use url::Url;

use crate::handle;

/// The largest document that is read, in bytes.
pub const LARGEST: usize = 64 * 1024;

/// What a document says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The key that the account's commits are signed with; none where the document has none that can be used.
    pub key: Option<Key>,
    /// The account's host, such as `https://pds.example.com`; none where the document names none that can be used.
    pub host: Option<Box<str>>,
    /// The handle that the account claims, in lower case. Whether the handle's owner agrees is another question.
    pub handle: Option<Box<str>>,
}

/// Why a document cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// It is too large.
    #[error("the DID document has more than {LARGEST} bytes")]
    TooLarge,
    /// It is no JSON object.
    #[error("the DID document is not a JSON object")]
    NotJson,
    /// It is that of another DID.
    #[error("the DID document is that of another DID")]
    OtherDid,
}

// === impl Document ===

impl Document {
    /// Reads the document of a DID.
    ///
    /// # Errors
    /// It is too large, no JSON object, or that of another DID.
    pub fn parse(did: &str, bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > LARGEST {
            return Err(DocumentError::TooLarge);
        }
        // The parser ends at 128 levels.
        let document: Map<String, Value> = serde_json::from_slice(bytes).map_err(|_| DocumentError::NotJson)?;
        if document.get("id").and_then(Value::as_str) != Some(did) {
            return Err(DocumentError::OtherDid);
        }
        let part = |list: &str, fragment: &str| named(&document, list, did, fragment);
        let claims = document.get("alsoKnownAs").and_then(Value::as_array).into_iter().flatten();
        Ok(Self {
            key: part("verificationMethod", "#atproto").and_then(read_key),
            host: part("service", "#atproto_pds").and_then(read_host).map(String::into_boxed_str),
            handle: claims.filter_map(Value::as_str).find_map(handle::claimed).map(String::into_boxed_str),
        })
    }
}

/// Returns the first object of a list with this fragment as its ID, with or without the DID before it.
fn named<'a>(
    document: &'a Map<String, Value>,
    list: &str,
    did: &str,
    fragment: &str,
) -> Option<&'a Map<String, Value>> {
    let objects = document.get(list)?.as_array()?.iter().filter_map(Value::as_object);
    objects.into_iter().find(|object| {
        let id = object.get("id").and_then(Value::as_str).unwrap_or_default();
        id.strip_prefix(did).unwrap_or(id) == fragment
    })
}

fn read_key(method: &Map<String, Value>) -> Option<Key> {
    let text = |name: &str| method.get(name)?.as_str();
    Key::from_method(text("type")?, text("publicKeyMultibase")?).ok()
}

/// Returns the origin of a service; none where there is more to its address, or less.
fn read_host(service: &Map<String, Value>) -> Option<String> {
    if service.get("type")?.as_str()? != "AtprotoPersonalDataServer" {
        return None;
    }
    origin(service.get("serviceEndpoint")?.as_str()?)
}

/// Reads the address of a host: `http` or `https`, a name, perhaps a port, and nothing else.
pub(crate) fn origin(text: &str) -> Option<String> {
    // What a browser forgives (spaces, backslashes, missing slashes) is forgiven by nobody else alike.
    let (scheme, rest) = text.split_once("://")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]/".contains(&byte);
    if !matches!(scheme, "http" | "https") || rest.is_empty() || rest.len() > 300 || !rest.bytes().all(plain) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    if url.path() != "/" || url.host_str()?.is_empty() {
        return None;
    }
    let origin = url.origin().ascii_serialization();
    (origin != "null").then_some(origin)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, any, prop};
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use serde_json::json;

    use super::*;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
    const P256: &str = "zDnaeTiq1PdzvZXUaMdezchcMJQpBdH2VN4pgrrEhMCCbmwSb";
    const K256: &str = "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme";

    fn key(kind: &str, text: &str) -> Value {
        json!({"id": "#atproto", "type": kind, "controller": DID, "publicKeyMultibase": text})
    }

    fn keys(methods: &Value) -> Option<String> {
        let document = json!({"id": DID, "verificationMethod": methods}).to_string();
        Document::parse(DID, document.as_bytes()).unwrap().key.map(|key| key.to_string())
    }

    fn host(services: &Value) -> Option<String> {
        let document = json!({"id": DID, "service": services}).to_string();
        Document::parse(DID, document.as_bytes()).unwrap().host.map(String::from)
    }

    fn host_at(endpoint: &str) -> Option<String> {
        host(&json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint}]))
    }

    #[test]
    fn a_usual_document_says_key_host_and_handle() {
        let document = json!({
            "@context": ["https://www.w3.org/ns/did/v1", {"odd": [[[1]]]}],
            "id": DID,
            "alsoKnownAs": ["https://example.com", "at://Alice.Example.com", "at://other.example.com"],
            "verificationMethod": [
                {"id": format!("{DID}#atproto_label"), "type": "Multikey", "publicKeyMultibase": P256},
                {"id": format!("{DID}#atproto"), "type": "Multikey", "controller": DID, "publicKeyMultibase": K256},
            ],
            "service": [
                {"id": "#bsky_fg", "type": "BskyFeedGenerator", "serviceEndpoint": "https://feed.example.com"},
                {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://PDS.example.com"},
            ],
        });
        let document = Document::parse(DID, document.to_string().as_bytes()).unwrap();
        assert_eq!(document.key.unwrap().to_string(), K256);
        assert_eq!(document.host.as_deref(), Some("https://pds.example.com"));
        assert_eq!(document.handle.as_deref(), Some("alice.example.com"));
    }

    #[test]
    fn what_is_no_document_of_the_did_is_refused() {
        let deep = format!("{{\"id\": \"{DID}\", \"x\": {}{}}}", "[".repeat(20_000), "]".repeat(20_000));
        let large = json!({"id": DID, "x": "a".repeat(LARGEST)}).to_string();
        for (text, error) in [
            ("", DocumentError::NotJson),
            ("[]", DocumentError::NotJson),
            ("null", DocumentError::NotJson),
            ("<html>", DocumentError::NotJson),
            ("{\"id\": 1}", DocumentError::OtherDid),
            ("{}", DocumentError::OtherDid),
            ("{\"id\": \"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa\"}", DocumentError::OtherDid),
            ("{\"id\": \"DID:PLC:EWVI7NXZYOUN6ZHXRHS64OIZ\"}", DocumentError::OtherDid),
            (&deep, DocumentError::NotJson),
            (&large, DocumentError::TooLarge),
        ] {
            assert_eq!(Document::parse(DID, text.as_bytes()), Err(error), "{}", &text[..text.len().min(60)]);
        }
        assert_eq!(Document::parse(DID, b"{\"id\": \"\xff\"}"), Err(DocumentError::NotJson));
    }

    #[test]
    fn the_key_is_the_first_of_its_name_and_only_of_a_kind_that_is_known() {
        for (methods, expected) in [
            (json!([key("Multikey", P256)]), Some(P256)),
            (json!([key("Multikey", K256), key("Multikey", P256)]), Some(K256)),
            (json!([1, null, [], "x", key("Multikey", P256)]), Some(P256)),
            (json!([{"id": format!("{DID}#atproto"), "type": "Multikey", "publicKeyMultibase": K256}]), Some(K256)),
            // The first of its name counts, even where it is of no use.
            (json!([key("Multikey", "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"), key("Multikey", P256)]), None),
            (json!([key("Ed25519VerificationKey2020", P256)]), None),
            (json!([key("Multikey", "")]), None),
            (json!([key("Multikey", &"z1".repeat(10_000))]), None),
            (json!([{"id": "#atproto", "type": "Multikey", "publicKeyMultibase": [K256]}]), None),
            (json!([{"id": "#atproto", "type": "JsonWebKey2020", "publicKeyJwk": {"crv": "P-256"}}]), None),
            (
                json!([{"id": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa#atproto", "type": "Multikey", "publicKeyMultibase": K256}]),
                None,
            ),
            (json!([{"id": "atproto", "type": "Multikey", "publicKeyMultibase": K256}]), None),
            (json!(key("Multikey", P256)), None),
            (json!(null), None),
        ] {
            assert_eq!(keys(&methods).as_deref(), expected, "{methods}");
        }
    }

    #[test]
    fn a_host_is_an_origin_and_nothing_else() {
        for (endpoint, expected) in [
            ("https://pds.example.com", Some("https://pds.example.com")),
            ("https://pds.example.com/", Some("https://pds.example.com")),
            ("https://PDS.example.com:443", Some("https://pds.example.com")),
            ("https://pds.example.com:8443", Some("https://pds.example.com:8443")),
            ("http://localhost:2583", Some("http://localhost:2583")),
            ("https://192.0.2.1", Some("https://192.0.2.1")),
            // Other ways to write 127.0.0.1 are read as what they mean, and checked as that.
            ("https://2130706433", Some("https://127.0.0.1")),
            ("https://0x7f.1", Some("https://127.0.0.1")),
            ("https://[::ffff:127.0.0.1]", Some("https://[::ffff:7f00:1]")),
            ("https://pds.example.com/path", None),
            ("https://pds.example.com//", None),
            ("https://pds.example.com?x=1", None),
            ("https://pds.example.com#x", None),
            ("https://user@pds.example.com", None),
            ("https://user:pass@pds.example.com", None),
            ("https://a@127.0.0.1:80", None),
            ("https:\\\\pds.example.com", None),
            ("https:pds.example.com", None),
            ("HTTPS://pds.example.com", None),
            (" https://pds.example.com", None),
            ("https://pds.example.com\n.evil", None),
            ("https://pds.exa\tmple.com", None),
            ("https://pds.example.com:99999", None),
            ("https://[::1", None),
            ("https://", None),
            ("https:///", None),
            ("ftp://pds.example.com", None),
            ("file:///etc/passwd", None),
            ("gopher://pds.example.com", None),
            ("wss://pds.example.com", None),
            ("//pds.example.com", None),
            ("", None),
        ] {
            assert_eq!(host_at(endpoint).as_deref(), expected, "{endpoint:?}");
        }
        let long = format!("https://{}.com", "a.".repeat(200));
        assert_eq!(host_at(&long), None);
        let of = |id: &str, kind: &str| {
            host(&json!([{"id": id, "type": kind, "serviceEndpoint": "https://pds.example.com"}]))
        };
        assert!(of(&format!("{DID}#atproto_pds"), "AtprotoPersonalDataServer").is_some());
        assert_eq!(of("#atproto_pds", "SomethingElse"), None);
        assert_eq!(of("#pds", "AtprotoPersonalDataServer"), None);
        assert_eq!(host(&json!({"#atproto_pds": "https://pds.example.com"})), None);
        assert_eq!(
            host(
                &json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": {"uri": "https://a.b"}}])
            ),
            None
        );
    }

    proptest! {
        #[test]
        fn whatever_is_written_as_a_host_is_an_origin_or_none(text in ".{0,40}", scheme in prop::sample::select(vec!["", "http://", "https://", "https:"])) {
            if let Some(host) = host_at(&format!("{scheme}{text}")) {
                let url = Url::parse(&host).unwrap();
                prop_assert!(matches!(url.scheme(), "http" | "https"));
                prop_assert_eq!((url.path(), url.query(), url.fragment(), url.username()), ("/", None, None, ""));
                prop_assert_eq!(origin(&host), Some(host));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse(DID, &bytes);
        }

        #[test]
        fn any_value_in_any_place_is_read(
            place in prop::sample::select(vec!["alsoKnownAs", "verificationMethod", "service"]),
            value in any_value(),
        ) {
            let document = json!({"id": DID, place: value}).to_string();
            prop_assert!(Document::parse(DID, document.as_bytes()).is_ok());
        }
    }

    fn any_value() -> impl proptest::strategy::Strategy<Value = Value> {
        let leaf = proptest::prop_oneof![
            any::<Option<bool>>().prop_map(|value| json!(value)),
            any::<f64>().prop_map(|value| json!(value)),
            "(at://|#atproto|#atproto_pds|Multikey|https://)?[a-z.]{0,8}".prop_map(|text| json!(text)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let name = prop::sample::select(vec!["id", "type", "publicKeyMultibase", "serviceEndpoint", "x"]);
            proptest::prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
                prop::collection::vec((name, inner), 0..4).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
                }),
            ]
        })
    }
}
