//! The CID of a block, by itself.

use std::fmt;

use crate::cid::Cid;
use crate::sha256::sha256;

/// A CID of version 1 with SHA-256, DAG-CBOR or raw.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockCid([u8; 36]);

// === impl BlockCid ===

impl BlockCid {
    /// How many bytes it has.
    pub const LEN: usize = 36;

    /// Takes one from the start of bytes; none where they begin with something else.
    #[must_use]
    pub fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        Cid::take(bytes).map(|(cid, rest)| (Self::from(cid), rest))
    }

    /// Makes that of a DAG-CBOR block with this digest.
    #[must_use]
    pub fn dag_cbor(digest: &[u8; 32]) -> Self {
        let mut bytes = [0; 36];
        let (kind, place) = bytes.split_at_mut(4);
        kind.copy_from_slice(&[0x01, 0x71, 0x12, 0x20]);
        place.copy_from_slice(digest);
        Self(bytes)
    }

    /// Says whether a block is what the CID says.
    #[must_use]
    pub fn is_of(&self, block: &[u8]) -> bool {
        sha256(block) == *self.digest()
    }

    /// Says whether it is that of a DAG-CBOR block.
    #[must_use]
    pub fn is_dag_cbor(&self) -> bool {
        self.0.starts_with(&[0x01, 0x71])
    }

    /// Returns the digest of the block.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        self.0.last_chunk().unwrap_or(&[0; 32])
    }

    /// Returns its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 36] {
        &self.0
    }
}

impl From<Cid<'_>> for BlockCid {
    fn from(cid: Cid<'_>) -> Self {
        Self(*cid.bytes())
    }
}

impl fmt::Display for BlockCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Cid::take(&self.0) {
            Some((cid, _)) => f.write_str(cid.text().as_str()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for BlockCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
