//! Keys of the replay's own, and what is signed with them.
//!
//! An account's key hangs on its DID alone, so that two relays of the same settings sign with the same keys, and so do two runs. They are no
//! secret: anybody can compute them.

use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use sha2::{Digest as _, Sha256};

use crate::settings::Signing;
use crate::value::Digest;

/// Bytes of a signature: `r` and `s`.
pub(crate) const SIGNATURE: usize = 64;

/// A private key, and how its public half is written.
#[derive(Clone)]
pub(crate) enum Key {
    K256(secp256k1::SecretKey),
    P256(Box<p256::ecdsa::SigningKey>),
}

/// Returns the key that an account's commits are signed with, as its document has it: a multikey.
#[must_use]
pub fn account_key(did: &str, signing: Signing) -> String {
    Key::of(did.as_bytes(), signing, Purpose::Repo).multikey()
}

/// What a key is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Commits.
    Repo,
    /// Operations of the directory.
    Rotation,
}

impl Key {
    /// The key of an account, on a curve that the settings allow.
    pub(crate) fn of(did: &[u8], signing: Signing, purpose: Purpose) -> Self {
        let is_k256 = match signing {
            Signing::K256 => true,
            Signing::P256 => false,
            Signing::Both => Sha256::digest(did)[0] & 1 == 0,
        };
        let label: &[u8] = match purpose {
            Purpose::Repo => b"penstock-replay repo ",
            Purpose::Rotation => b"penstock-replay rotation ",
        };
        // Nearly every number of 256 bits is a key; of those that are none, the next one is.
        let mut secret: Digest = Sha256::new().chain_update(label).chain_update(did).finalize().into();
        loop {
            let key = if is_k256 {
                secp256k1::SecretKey::from_secret_bytes(secret).map(Self::K256).ok()
            } else {
                p256::ecdsa::SigningKey::from_slice(&secret).map(|key| Self::P256(Box::new(key))).ok()
            };
            match key {
                Some(key) => return key,
                None => secret = Sha256::digest(secret).into(),
            }
        }
    }

    /// Signs a digest: the same each time, `s` in the lower half. Nothing where the library refuses, which it does for no digest.
    pub(crate) fn sign(&self, digest: &Digest) -> Option<[u8; SIGNATURE]> {
        match self {
            Self::K256(key) => Some(key.sign_ecdsa(secp256k1::Message::from_digest(*digest)).serialize_compact()),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(digest).ok()?;
                signature.normalize_s().to_bytes().as_slice().try_into().ok()
            }
        }
    }

    /// The public half as a multikey: `z`, then base58 of the curve's code and the compressed point.
    pub(crate) fn multikey(&self) -> String {
        let (code, point): ([u8; 2], _) = match self {
            Self::K256(key) => ([0xe7, 0x01], secp256k1::PublicKey::from_secret_key(key).serialize().to_vec()),
            Self::P256(key) => ([0x80, 0x24], key.verifying_key().to_sec1_point(true).as_bytes().to_vec()),
        };
        format!("z{}", base58(&[code.as_slice(), &point].concat()))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.multikey())
    }
}

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Writes bytes of which the first is not 0 in the base of Bitcoin's addresses.
fn base58(bytes: &[u8]) -> String {
    let mut digits: Vec<u8> = Vec::with_capacity(bytes.len() * 2);
    for &byte in bytes {
        let mut carry = u32::from(byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    digits.iter().rev().map(|&digit| char::from(BASE58[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DID: &[u8] = b"did:plc:c47os3qgjghgkayigu7ddcft";

    #[test]
    fn base58_is_that_of_the_drafts_vectors() {
        // https://datatracker.ietf.org/doc/html/draft-msporny-base58-03#section-5
        assert_eq!(base58(b"Hello World!"), "2NEpo7TZRRrLZSi2U");
        let fox = b"The quick brown fox jumps over the lazy dog.";
        assert_eq!(base58(fox), "USm3fpXnKG5EUBx2ndxBDMPVciP5hGey2Jh4NDv6gmeo1LkMeiKrLJUUBk6Z");
    }

    #[test]
    fn multikeys_tell_the_curve_by_their_beginning() {
        let beginning = |signing| Key::of(DID, signing, Purpose::Repo).multikey()[..5].to_owned();
        assert_eq!((beginning(Signing::K256), beginning(Signing::P256)), ("zQ3sh".to_owned(), "zDnae".to_owned()));
    }

    #[test]
    fn signatures_hold_for_the_multikey_and_are_the_same_each_time() {
        for n in 0..32_u8 {
            let digest: Digest = Sha256::digest([n]).into();
            for signing in [Signing::K256, Signing::P256] {
                let key = Key::of(&[DID, &[n]].concat(), signing, Purpose::Repo);
                let signature = key.sign(&digest).unwrap();
                let public = penstock_wire::Key::from_multikey(&key.multikey()).unwrap();
                assert_eq!(public.verify(&[n], &signature), Ok(()), "{signing:?} {n}");
                assert_eq!(key.sign(&digest).unwrap(), signature);
            }
        }
    }

    #[test]
    fn both_curves_come_about_and_purposes_have_keys_of_their_own() {
        let of = |n: u8| Key::of(&[DID, &[n]].concat(), Signing::Both, Purpose::Repo);
        let k256 = (0..100).filter(|&n| matches!(of(n), Key::K256(_))).count();
        assert!((20..80).contains(&k256), "{k256} of 100");
        let rotation = Key::of(DID, Signing::K256, Purpose::Rotation);
        assert_ne!(Key::of(DID, Signing::K256, Purpose::Repo).multikey(), rotation.multikey());
    }
}
