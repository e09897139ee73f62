//! The DIDs of each loop: the recorded ones in loop 0, and others from then on.

use std::collections::HashMap;

use data_encoding::BASE32_NOPAD_NOCASE;
use sha2::{Digest as _, Sha256};

use crate::value::did_renamed;

/// Gives each DID of the recording its name in a loop.
///
/// Where the relay is a directory too, a name can be led back to the loop and to what it was recorded as, without keeping any: an endless
/// relay makes more names than memory holds.
#[derive(Debug)]
pub(crate) struct Names {
    /// One for each recording: a recording that was itself taken from a replay does not meet its own names again.
    salt: u64,
    /// The recorded DIDs by their number, where names can be led back.
    recorded: Option<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    dids: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, u32>,
}

// === impl Names ===

impl Names {
    /// Names that cannot be led back.
    pub(crate) fn hashed(salt: u64) -> Self {
        Self { salt, recorded: None }
    }

    /// Names that can.
    pub(crate) fn reversible(salt: u64, dids: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        let dids: Vec<_> = dids.into_iter().collect();
        let numbers = (0..).zip(&dids).map(|(number, did)| (did.clone(), number)).collect();
        Self { salt, recorded: Some(Recorded { dids, numbers }) }
    }

    /// The name of a recorded DID in a loop, as long as before.
    pub(crate) fn name(&self, did: &[u8], round: u64) -> Vec<u8> {
        if round == 0 {
            return did.to_vec();
        }
        let number = self.recorded.as_ref().and_then(|recorded| recorded.numbers.get(did)).filter(|_| is_plc(did));
        let Some(&number) = number else { return did_renamed(did, round, self.salt) };
        let mut halves = (round & HALF, u64::from(number));
        for turn in 0..TURNS {
            halves = (halves.1, halves.0 ^ self.mixed(turn, halves.1));
        }
        let bytes = (u128::from(halves.0) << HALF_BITS | u128::from(halves.1)).to_be_bytes();
        let mut name = PLC.to_vec();
        name.extend_from_slice(BASE32_NOPAD_NOCASE.encode(&bytes[1..]).to_ascii_lowercase().as_bytes());
        name
    }

    /// The number of the recorded DID behind a name, and the loop; `None` of a name that no loop has, or that cannot be led back.
    pub(crate) fn find(&self, name: &[u8]) -> Option<(usize, u64)> {
        let recorded = self.recorded.as_ref()?;
        if let Some(&number) = recorded.numbers.get(name) {
            return Some((number as usize, 0));
        }
        let letters = name.strip_prefix(PLC).filter(|_| is_plc(name))?;
        let bytes = BASE32_NOPAD_NOCASE.decode(letters).ok()?;
        let all = bytes.iter().fold(0_u128, |all, &byte| all << 8 | u128::from(byte));
        let mut halves = ((all >> HALF_BITS) as u64 & HALF, all as u64 & HALF);
        for turn in (0..TURNS).rev() {
            halves = (halves.1 ^ self.mixed(turn, halves.0), halves.0);
        }
        let (round, number) = (halves.0, usize::try_from(halves.1).ok()?);
        // What nobody was named falls on a number that there is about never.
        (round > 0 && recorded.dids.get(number).is_some_and(|did| is_plc(did))).then_some((number, round))
    }

    fn mixed(&self, turn: u8, half: u64) -> u64 {
        let hash = Sha256::new().chain_update(self.salt.to_be_bytes()).chain_update([turn]);
        let hash = hash.chain_update(half.to_be_bytes()).finalize();
        hash.iter().take(8).fold(0, |all, &byte| all << 8 | u64::from(byte)) & HALF
    }
}

const PLC: &[u8] = b"did:plc:";
/// Bits of half a name: it has 24 characters of 5.
const HALF_BITS: u32 = 60;
const HALF: u64 = (1 << HALF_BITS) - 1;
const TURNS: u8 = 6;

fn is_plc(did: &[u8]) -> bool {
    did.strip_prefix(PLC).is_some_and(|letters| {
        letters.len() == 24 && letters.iter().all(|letter| matches!(letter, b'a'..=b'z' | b'2'..=b'7'))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const DIDS: [&[u8]; 3] =
        [b"did:plc:c47os3qgjghgkayigu7ddcft", b"did:web:somebody.example.com", b"did:plc:q4oiz4kxbhga5c2ss4qfbzlw"];

    #[test]
    fn a_name_leads_back_to_its_did_and_loop() {
        let names = Names::reversible(7, DIDS.map(Into::into));
        let mut seen = HashSet::new();
        for round in [0, 1, 2, 3, 583, u64::from(u32::MAX), HALF] {
            for number in [0, 2] {
                let name = names.name(DIDS[number], round);
                assert!(is_plc(&name), "{}", String::from_utf8_lossy(&name));
                assert_eq!(names.find(&name), Some((number, round)));
                assert!(seen.insert(name));
            }
        }
        assert_ne!(Names::reversible(8, DIDS.map(Into::into)).name(DIDS[0], 1), names.name(DIDS[0], 1));
    }

    #[test]
    fn what_nobody_was_named_leads_nowhere() {
        let names = Names::reversible(7, DIDS.map(Into::into));
        for round in 1..2000 {
            assert_eq!(names.find(&did_renamed(DIDS[0], round, 3)), None);
        }
        for name in
            ["", "did:plc:", "did:plc:c47os3qgjghgkayigu7ddcf", "did:plc:C47OS3QGJGHGKAYIGU7DDCFT", "did:web:a.com"]
        {
            assert_eq!(names.find(name.as_bytes()), None, "{name}");
        }
        assert_eq!(Names::hashed(7).find(DIDS[0]), None);
    }

    #[test]
    fn a_did_of_the_web_is_renamed_by_its_letters() {
        let names = Names::reversible(7, DIDS.map(Into::into));
        assert_eq!(names.name(DIDS[1], 1), did_renamed(DIDS[1], 1, 7));
        assert_eq!(names.find(DIDS[1]), Some((1, 0)));
    }
}
