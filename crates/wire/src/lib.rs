//! subscribeRepos frames, CAR and DAG-CBOR to lexicon JSON, with every hash checked.
//!
//! Pure: bytes in, values out. [`decode`] reads one WebSocket message and answers with the [`Frame`] it is, or with a
//! named [`FrameError`] that says whether to drop the connection or to set that one frame aside.
//!
//! What is checked of a commit or `#sync`: bounds, DID, rev and paths; the CAR's framing; the SHA-256 of every block; that
//! the first root is the commit the frame speaks of, and that the commit block names the same repo and rev. Signatures and
//! the tree (MST) are not checked here.
//!
//! Records are carried as the repo holds them, as long as they are strict DAG-CBOR maps: lexicons are not enforced, floats
//! pass, and a map that only looks like `{"$link":…}` is written as it stands.

mod body;
mod car;
mod cid;
mod commit;
mod decode;
mod error;
mod frame;
mod json;
mod limits;
mod syntax;
mod time;

pub use decode::decode;
pub use error::{BadFrame, BadReason, FrameError, Part};
pub use frame::{BodyKind, ErrorFrame, Event, Frame, Headline, Ignored, Info, Sync};
pub use limits::Limits;
