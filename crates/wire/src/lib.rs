//! subscribeRepos frames, CAR and DAG-CBOR to lexicon JSON, with every hash checked.
//!
//! Pure: bytes in, values out. [`decode`] reads one WebSocket message and answers with the [`Frame`] it is, or with a
//! named [`FrameError`] that says whether to drop the connection or to set that one frame aside.
//!
//! What is checked of a commit or `#sync`: bounds, DID, rev and paths; the CAR's framing; the SHA-256 of every block; that
//! the first root is the commit the frame speaks of, and that the commit block names the same repo and rev. Where
//! [`Limits::proof`] asks for it, the commit's ops are undone on its tree (MST) as well, and what was signed is at hand: see
//! [`Proof`].
//!
//! A fault costs as little as it can: an op whose record cannot be carried is carried without it and told in
//! [`Event::left_out`], and only what says of whom and when a commit is makes the frame a [`BadFrame`]. Around the hashed
//! blocks keys may stand in any order, and lengths be written in any way.
//!
//! Records are carried as the repo holds them, as long as they are strict DAG-CBOR maps: lexicons are not enforced, floats
//! pass, and a map that only looks like `{"$link":…}` is written as it stands.

mod block;
mod body;
mod bound;
mod car;
mod cbor;
mod changes;
mod cid;
mod commit;
mod decode;
mod deep;
mod envelope;
mod error;
mod frame;
mod json;
mod key;
mod kind;
mod limits;
mod proof;
mod quick;
mod record;
mod repo;
mod sha256;
mod syntax;
mod time;

pub use block::BlockCid;
pub use bound::most_data;
pub use decode::{decode, decode_filtered};
pub use error::{BadFrame, BadReason, FrameError, Part};
pub use frame::{ErrorFrame, Event, Frame, Headline, Ignored, Info, LeftOut, Sync};
pub use key::{Key, KeyError, SignatureFault};
pub use kind::BodyKind;
pub use limits::Limits;
pub use proof::{
    EMPTY_TREE, KeyOrder, NodePlace, Proof, ProofFault, RepoNode, Signed, TreeRoot, is_future, rev_number, rev_text,
};
pub use repo::{CommitFault, RepoCommit, car_root, record_json};
