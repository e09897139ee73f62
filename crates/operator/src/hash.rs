//! Hashes that say whether something changed.

use std::fmt;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Returns 16 hexadecimal digits that change when any of the texts changes, or their order.
pub(crate) fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        // With the length, what is moved from one text to the next is a change too.
        hasher.update(text.len().to_le_bytes());
        hasher.update(text.as_bytes());
    }
    HEXLOWER.encode(&hasher.finalize()[..8])
}

/// The operator's own key of the hashes of what is secret. Without it a hash that everybody may read in an annotation would tell a
/// short password to who tries them all.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HashKey(Vec<u8>);

// === impl HashKey ===

impl HashKey {
    /// How many bytes a key has.
    pub(crate) const LENGTH: usize = 32;

    /// Takes a key, if it is long enough.
    #[must_use]
    pub fn new(key: &[u8]) -> Option<Self> {
        (key.len() >= Self::LENGTH).then(|| Self(key.to_vec()))
    }

    /// Returns the same as [`hash`], for who has the key alone.
    pub(crate) fn hash<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        for text in texts {
            hmac.update(&text.len().to_le_bytes());
            hmac.update(text.as_bytes());
        }
        HEXLOWER.encode(&hmac.finalize().into_bytes()[..8])
    }

    /// Returns the token by which the operator administers the healers of a pipeline, the same as long as the key and the pipeline are.
    pub(crate) fn heal_token(&self, uid: &str) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        hmac.update(b"token of the healers of ");
        hmac.update(uid.as_bytes());
        HEXLOWER.encode(&hmac.finalize().into_bytes())
    }
}

/// Returns by what a service knows a token without being told it.
pub(crate) fn hash_of_token(token: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyed_hash_changes_with_the_key_and_every_text() {
        let key = |byte: u8| HashKey::new(&[byte; 32]).unwrap();
        let all = [key(1).hash(["a", "b"]), key(2).hash(["a", "b"]), key(1).hash(["ab", ""]), key(1).hash(["b", "a"])];
        for (at, one) in all.iter().enumerate() {
            assert!(one.len() == 16 && all[at + 1..].iter().all(|other| one != other), "{all:?}");
        }
        assert_eq!(key(1).hash(["a", "b"]), all[0]);
        assert_ne!(key(1).hash(["a", "b"]), hash(["a", "b"]));
        assert!(HashKey::new(&[0; 31]).is_none());
    }

    #[test]
    fn a_token_is_of_one_key_and_one_pipeline_and_its_hash_is_sha_256() {
        let key = |byte: u8| HashKey::new(&[byte; 32]).unwrap();
        let token = key(1).heal_token("u");
        assert_eq!((token.len(), &token), (64, &key(1).heal_token("u")));
        assert!(token != key(2).heal_token("u") && token != key(1).heal_token("v"));
        // FIPS 180-4, the example of one block.
        assert_eq!(hash_of_token("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn the_hash_is_that_of_rfc_4231() {
        // Case 1 of RFC 4231; its 20 bytes of key are filled up with zeros, as HMAC does itself.
        let mut padded = [0; 32];
        padded[..20].fill(0x0b);
        let mut hmac = Hmac::<Sha256>::new_from_slice(&HashKey::new(&padded).unwrap().0).unwrap();
        hmac.update(b"Hi There");
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(HEXLOWER.encode(&hmac.finalize().into_bytes()), expected);
    }
}
