//! Frames of real servers against independent answers, and damaged and crafted ones against the promise to name what is
//! wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod bound;
mod crafted;
mod damage;
mod fixtures;
mod interop;
mod keys;
mod loose;
mod oracle;
mod parts;
mod proof;
mod second;
