//! A relay that serves a recording, for tests, benchmarks and a laptop.
//!
//! It speaks `com.atproto.sync.subscribeRepos` as a real relay does, cursor rules included, and makes any number of distinct
//! events of a recording by looping it. Loop 0 is served byte for byte. Each later loop gives every repo a DID, and every
//! handle a label, of its own; seqs go on; revs and times (a record's `createdAt` too) move by whole seconds, so that they
//! follow the loop before; references to a repo or record of the recording point to the same loop's; and every block that
//! changes by this is rehashed, with all links to it. Left as recorded are record keys (the shape of a repo's tree hangs on them),
//! blobs, map keys, and **commit signatures, which are therefore invalid in every rewritten commit**: the keys are the
//! recording's authors'. With [`Settings::signing`] every commit, those of loop 0 too, is signed with keys of the replay's own, and with
//! [`Settings::directory`] the relay serves the documents that name them.
//!
//! With [`Settings::live_since`] all times, revs included, are instead those at which the events become live.
//!
//! [`bind`] opens a relay, [`frames`] gives the very frames it serves to whoever wants to compute what must come of them, and
//! [`Handle::inject`] makes it misbehave as real relays do.

mod accounts;
mod cbor;
mod client;
mod directory;
mod edition;
mod error;
mod faults;
mod host;
mod http;
mod names;
mod outbox;
mod parse;
mod recording;
mod relay;
mod settings;
mod shared;
mod sign;
mod skips;
mod stock;
mod template;
mod timeline;
mod value;
mod websocket;

pub use error::{Error, Malformed};
pub use faults::Fault;
pub use recording::BUNDLED;
pub use relay::{Handle, Relay, bind};
pub use settings::{Alter, BadCursor, FutureCursor, Rate, Recording, Settings, Signing, Stretch};
pub use sign::account_key;
pub use stock::{Frames, frames};
