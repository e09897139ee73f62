//! What the parsers promise for any input, checked by libFuzzer: one function a target.
//!
//! None of them only waits for a panic. What is accepted is held against a second reader or written and read again, and
//! what is refused has to say so in few words that hold no secret.

mod car;
mod cbor;
mod document;
mod entry;
mod export;
mod frame;
mod proof;
mod repo;
mod settings;

/// The plain decoder that the tests of `penstock-wire` hold the first one against.
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../crates/wire/tests/it/second.rs"]
mod second;

pub use car::car;
pub use document::document;
pub use entry::entry;
pub use export::export;
pub use frame::frame;
pub use proof::proof;
pub use repo::repo;
pub use settings::settings;
