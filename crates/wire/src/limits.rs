//! The bounds a frame is held to.

/// How many ops are held of one frame at most, whatever [`Limits::ops`] allows.
pub(crate) const OPS_HELD: usize = 1_000;

/// How many levels of nesting are read at most, whatever [`Limits::nesting`] allows: the CBOR reader stops at 127.
pub(crate) const NESTING_READ: usize = 100;

/// The bounds a frame is held to; what is over one is refused with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The whole frame, in bytes; default 5,000,000.
    pub frame: usize,
    /// The CAR of a commit or `#sync`, in bytes; default 2,000,000, the lexicon's own bound.
    pub blocks: usize,
    /// Ops of one commit; default 200, the lexicon's own bound; at most 1,000.
    pub ops: usize,
    /// One record's DAG-CBOR, in bytes; default 1,000,000.
    pub record: usize,
    /// Maps and lists inside each other in one record, the record itself counted; default 64, at most 100.
    ///
    /// Twice what atproto's own implementations recommend (`MAX_CBOR_NESTED_LEVELS`, 32), and far below the 127 at which
    /// usual JSON readers stop: the record stands three levels deep in the data, and a link adds one.
    pub nesting: usize,
    /// One event's JSON, in bytes; default 16,000,000.
    ///
    /// Blocks within their bound stay below it even if every byte is escaped. It is for the ops that share one block,
    /// which would otherwise multiply it: the record that crosses it is the last one written.
    pub data: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frame: 5_000_000, blocks: 2_000_000, ops: 200, record: 1_000_000, nesting: 64, data: 16_000_000 }
    }
}
