//! The blocks of a repo, found by their CIDs: 16 bytes of memory each, whatever their size.

use std::io;
use std::sync::Arc;

use penstock_wire::BlockCid;

use super::spool::{Budget, Spool};

/// The bits of a section's length in an entry; what is above is its place.
const LENGTH_BITS: u32 = 24;

/// Blocks, each as a section: its CID, then its bytes.
#[derive(Debug)]
pub(crate) struct Blocks {
    spool: Spool,
    index: Vec<Entry>,
}

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The start of the digest: others may begin with the same, so that what is found is held against the whole CID.
    start: u64,
    place: BlockPlace,
}

/// Where a section lies, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockPlace(u64);

// === impl BlockPlace ===

impl BlockPlace {
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    fn at(self) -> u64 {
        self.0 >> LENGTH_BITS
    }

    fn len(self) -> usize {
        usize::try_from(self.0 & ((1 << LENGTH_BITS) - 1)).unwrap_or_default()
    }
}

// === impl Blocks ===

impl Blocks {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { spool: Spool::new(budget), index: Vec::new() }
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    #[cfg(test)]
    pub(crate) fn is_on_disk(&self) -> bool {
        self.spool.is_on_disk()
    }

    /// Lays down a section with this CID.
    pub(crate) fn add(&mut self, cid: &BlockCid, section: &[u8]) -> io::Result<()> {
        let place = BlockPlace(self.spool.len() << LENGTH_BITS | section.len() as u64);
        self.spool.append(section)?;
        if self.index.len() == self.index.capacity() {
            // By a quarter: by half of it as much again would be there for nothing.
            self.index.reserve_exact((self.index.len() / 4).max(64));
        }
        self.index.push(Entry { start: start(cid), place });
        Ok(())
    }

    /// Prepares them for being found: nothing is added any more.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.index.sort_unstable();
        self.spool.finish()
    }

    /// Forgets what CIDs they have: they are read by their places from now on.
    pub(crate) fn forget(&mut self) {
        self.index = Vec::new();
    }

    /// Finds a block and reads its CID.
    pub(crate) fn find(&self, cid: &BlockCid, buffer: &mut Vec<u8>) -> io::Result<Option<BlockPlace>> {
        let start = start(cid);
        let first = self.index.partition_point(|entry| entry.start < start);
        let alike = self.index.get(first..).unwrap_or_default().iter().take_while(|entry| entry.start == start);
        for entry in alike {
            self.spool.read(entry.place.at(), BlockCid::LEN.min(entry.place.len()), buffer)?;
            if buffer.as_slice() == cid.bytes() {
                return Ok(Some(entry.place));
            }
        }
        Ok(None)
    }

    /// Reads a section into `buffer`: its CID, then its bytes.
    pub(crate) fn read<'b>(&self, place: BlockPlace, buffer: &'b mut Vec<u8>) -> io::Result<(BlockCid, &'b [u8])> {
        self.spool.read(place.at(), place.len(), buffer)?;
        BlockCid::take(buffer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn start(cid: &BlockCid) -> u64 {
    cid.digest().first_chunk().map_or(0, |start| u64::from_be_bytes(*start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_by_its_whole_cid() {
        for limit in [0, 1_000_000] {
            let mut blocks = Blocks::new(Arc::new(Budget::new(limit, std::env::temp_dir())));
            // All begin alike, in pairs.
            let cid = |n: u8| {
                let mut digest = [n / 2; 32];
                digest[31] = n;
                BlockCid::dag_cbor(&digest)
            };
            for n in (0..100).rev() {
                blocks.add(&cid(n), &[cid(n).bytes(), &[n; 5][..]].concat()).unwrap();
            }
            blocks.finish().unwrap();
            assert_eq!(blocks.is_on_disk(), limit == 0);
            let (mut buffer, mut block) = (Vec::new(), Vec::new());
            for n in 0..100 {
                let place = blocks.find(&cid(n), &mut buffer).unwrap().unwrap();
                assert_eq!(BlockPlace::from_bytes(place.to_bytes()), place);
                assert_eq!(blocks.read(place, &mut block).unwrap(), (cid(n), &[n; 5][..]));
            }
            assert_eq!(blocks.find(&cid(100), &mut buffer).unwrap(), None);
            let mut other = [7; 32];
            other[30] = 1;
            assert_eq!(blocks.find(&BlockCid::dag_cbor(&other), &mut buffer).unwrap(), None);
        }
    }
}
