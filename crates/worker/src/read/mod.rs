//! Entries on their way from Redis into this process.
//!
//! In: entries that nobody has read yet, and entries of consumers that are silent for too long.
//! Out: decoded entries, to `apply::gather`; suspects and entries that are too large, each to be written by itself.
//! Started by `streams`, once for each of the two streams.

mod decode;
pub(crate) mod first_stream;
pub(crate) mod second_stream;
pub(crate) mod take_over;

pub(crate) use decode::{Decoded, Decoding};
