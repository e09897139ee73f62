//! The bounds a frame is held to.

/// How many ops are held of one frame at most, whatever [`Limits::ops`] allows.
pub(crate) const OPS_HELD: usize = 1_000;

/// How many levels of nesting are read at most, whatever [`Limits::nesting`] allows: a record stands three levels deep in the
/// data, a link adds one, and readers of entries stop at [`MAX_DEPTH`](penstock_core::json::MAX_DEPTH).
pub(crate) const NESTING_READ: usize = penstock_core::json::MAX_DEPTH - 4;

/// How many parts of one event are told apart that it lacks; further ones are counted.
pub(crate) const PARTS_TOLD: usize = 200;

/// The bounds a frame is held to; what is over one is left out, or refused, with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The whole frame, in bytes; default 5,000,000.
    pub frame: usize,
    /// The CAR of a commit or `#sync`, in bytes; default 2,000,000, the lexicon's own bound. Of a longer one as much is read.
    pub blocks: usize,
    /// Ops of one commit that are carried with their records; default 200, the lexicon's own bound; at most 1,000. Behind
    /// them deletes take effect, and other ops are carried without their records.
    pub ops: usize,
    /// One record's DAG-CBOR, in bytes; default 1,000,000.
    pub record: usize,
    /// Maps and lists inside each other in one record, the record itself counted; default and most 252.
    ///
    /// Servers do not hold to the 32 that atproto's own libraries recommend (`MAX_CBOR_NESTED_LEVELS`): those tried take 200.
    pub nesting: usize,
    /// One event's JSON, in bytes; default 16,000,000.
    ///
    /// Blocks within their bound stay below it even if every byte is escaped. It is for the ops that share one block,
    /// which would otherwise multiply it: the record that crosses it is left out, and those behind it.
    pub data: usize,
    /// Whether commits and `#sync` are proved, see [`Proof`](crate::Proof); default not.
    pub proof: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame: 5_000_000,
            blocks: 2_000_000,
            ops: 200,
            record: 1_000_000,
            nesting: NESTING_READ,
            data: 16_000_000,
            proof: false,
        }
    }
}
