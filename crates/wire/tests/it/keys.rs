//! Keys and signatures against the interop suite of the specification, where it is at hand.

use data_encoding::{BASE64, BASE64_NOPAD};
use penstock_wire::{Key, KeyError, SignatureFault};
use serde_json::Value as Json;

use crate::fixtures::shared;

fn suite(name: &str) -> Vec<Json> {
    let Some(bytes) = shared(&format!("interop/crypto/{name}.json")) else {
        println!("skipped: the fixtures beside the checkout are absent ({name})");
        return Vec::new();
    };
    serde_json::from_slice(&bytes).unwrap()
}

fn base64(text: &Json) -> Vec<u8> {
    let text = text.as_str().unwrap().trim_end_matches('=');
    BASE64_NOPAD.decode(text.as_bytes()).or_else(|_| BASE64.decode(text.as_bytes())).unwrap()
}

#[test]
fn signatures_hold_exactly_where_the_suite_says() {
    for case in suite("signature-fixtures") {
        let comment = case["comment"].as_str().unwrap();
        let key = Key::from_multikey(case["publicKeyDid"].as_str().unwrap()).unwrap();
        let legacy =
            Key::from_method(case["didDocSuite"].as_str().unwrap(), case["publicKeyMultibase"].as_str().unwrap());
        assert_eq!(legacy, Ok(key), "{comment}");
        assert_eq!(format!("did:key:{key}"), case["publicKeyDid"].as_str().unwrap());
        let (message, signature) = (base64(&case["messageBase64"]), base64(&case["signatureBase64"]));
        let holds = key.verify(&message, &signature);
        assert_eq!(holds.is_ok(), case["validSignature"].as_bool().unwrap(), "{comment}: {holds:?}");
        let tags: Vec<&str> = case["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
        let expected = match tags[..] {
            [] => Ok(()),
            ["high-s"] => Err(SignatureFault::HighS),
            ["der-encoded"] => Err(SignatureFault::Length),
            _ => panic!("a tag is new: {tags:?}"),
        };
        assert_eq!(holds, expected, "{comment}");
        let other = [&message[..], b"!"].concat();
        assert!(key.verify(&other, &signature).is_err(), "{comment}: another message");
    }
}

#[test]
fn keys_are_read_and_written_the_same_in_every_form() {
    for case in suite("w3c_didkey_K256").into_iter().chain(suite("w3c_didkey_P256")) {
        let text = case["publicDidKey"].as_str().unwrap();
        let key = Key::from_multikey(text).unwrap();
        assert_eq!(Key::from_method("Multikey", &text["did:key:".len()..]), Ok(key));
        assert_eq!(Key::from_bytes(&key.to_bytes()), Ok(key));
        assert_eq!(format!("did:key:{key}"), text);
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let key = Key::from_multikey("zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme").unwrap();
    let bytes = key.to_bytes();
    for (text, error) in [
        ("", KeyError::Text),
        ("did:key:", KeyError::Text),
        ("Q3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme", KeyError::Text),
        ("zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBm", KeyError::Kind),
        ("z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", KeyError::Kind),
        ("zQ", KeyError::Kind),
        (&"z2".repeat(1_000), KeyError::Text),
    ] {
        assert_eq!(Key::from_multikey(text), Err(error), "{text}");
    }
    assert_eq!(Key::from_method("Ed25519VerificationKey2020", &key.to_string()), Err(KeyError::Kind));
    assert_eq!(Key::from_method("EcdsaSecp256k1VerificationKey2019", &key.to_string()), Ok(key));
    for curve in [0x80, 0xE7] {
        // No point of the curve has this x.
        let beyond = [&[curve, 2][..], &[0xFF; 32]].concat();
        assert_eq!(Key::from_bytes(&beyond), Err(KeyError::Point));
        let at_infinity = [&[curve, 0][..], &[0; 32]].concat();
        assert_eq!(Key::from_bytes(&at_infinity), Err(KeyError::Point));
    }
    assert_eq!(Key::from_bytes(&bytes[..33]), Err(KeyError::Point));
    assert_eq!(Key::from_bytes(&[&[7][..], &bytes[1..]].concat()), Err(KeyError::Kind));
    assert_eq!(Key::from_bytes(&[]), Err(KeyError::Kind));
    for bad in [&[][..], &[0; 63], &[0; 65]] {
        assert_eq!(key.verify(b"", bad), Err(SignatureFault::Length));
    }
    assert_eq!(key.verify(b"", &[0; 64]), Err(SignatureFault::Mismatch));
    assert_eq!(key.verify(b"", &[0xFF; 64]), Err(SignatureFault::HighS));
}
