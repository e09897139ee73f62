//! SHA-256 of what is there as a whole, straight from where it stands.
//!
//! The hasher of the library takes pieces as they come, and so copies what does not fill a block: for blocks and keys of some dozen
//! bytes that is a third of the work.

use sha2::block_api::compress256;

/// How many bytes are hashed at once.
const BLOCK: usize = 64;

/// The state before the first block (FIPS 180-4, section 5.3.3).
const START: [u32; 8] =
    [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19];

/// Returns the digest of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    let (words, _) = digest.as_chunks_mut();
    for (place, word) in words.iter_mut().zip(state_after(bytes)) {
        *place = word.to_be_bytes();
    }
    digest
}

/// Returns how many zero bits the digest of bytes begins with.
pub(crate) fn leading_zeros(bytes: &[u8]) -> u32 {
    let mut zeros = 0;
    for word in state_after(bytes) {
        zeros += word.leading_zeros();
        if word != 0 {
            break;
        }
    }
    zeros
}

fn state_after(bytes: &[u8]) -> [u32; 8] {
    let mut state = START;
    let (blocks, tail) = bytes.as_chunks::<BLOCK>();
    if !blocks.is_empty() {
        compress256(&mut state, blocks);
    }
    // Behind the last bytes a one, zeros, and how many bits there were: in this block, where there is room for it.
    let mut end = [[0; BLOCK]; 2];
    let count = if tail.len() + 9 > BLOCK { 2 } else { 1 };
    let padded = end.as_flattened_mut();
    if let Some((place, behind)) = padded.split_at_mut_checked(tail.len()) {
        place.copy_from_slice(tail);
        behind.iter_mut().take(1).for_each(|place| *place = 0x80);
    }
    let bits = (bytes.len() as u64).wrapping_mul(8).to_be_bytes();
    if let Some(place) = padded.get_mut(..count * BLOCK).and_then(|padded| padded.last_chunk_mut()) {
        *place = bits;
    }
    compress256(&mut state, end.get(..count).unwrap_or_default());
    state
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn a_digest_is_that_of_the_library_whatever_the_length() {
        let bytes: Vec<u8> = (0..400_u32).map(|at| (at * 31 + 7).to_le_bytes()[0]).collect();
        for len in 0..=bytes.len() {
            let bytes = &bytes[..len];
            let expected: [u8; 32] = Sha256::digest(bytes).into();
            assert_eq!(sha256(bytes), expected, "{len}");
            let zeros = expected.iter().take_while(|byte| **byte == 0).count();
            let zeros = zeros * 8 + expected.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
            assert_eq!(leading_zeros(bytes) as usize, zeros, "{len}");
        }
    }
}
