//! Frames of real servers against independent answers, and damaged and crafted ones against the promise to name what is
//! wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole crate is a test")]

mod crafted;
mod damage;
mod fixtures;
mod interop;
mod oracle;
mod second;
