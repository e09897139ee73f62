//! In: the bytes of one WebSocket to a relay.
//! Out: chunks of decoded frames, in order of arrival.
//! `session` opens the socket and starts the reader; `resume::standby` samples other relays through the same socket.

pub(crate) mod decode;
pub(crate) mod item;
mod partial;
pub(crate) mod signatures;
mod skimmer;
pub(crate) mod socket;
pub(crate) mod states;
pub(crate) mod transport;
