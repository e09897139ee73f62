//! Proofs: real commits hold, tampered ones do not, and no change of a commit goes unseen.

mod limits;
mod random;
mod real;
mod reference;
mod signed;
mod suites;

use penstock_wire::{Event, Frame, Limits, Proof, decode};

/// The limits of everyone who asks for proof.
pub(crate) const PROVED: fn() -> Limits = || Limits { proof: true, ..Limits::default() };

/// Decodes a frame that is a commit, and proves it.
pub(crate) fn commit(frame: &[u8]) -> Event {
    match decode(frame, &PROVED()) {
        Ok(Frame::Event(event)) => event,
        other => panic!("not a commit: {other:?}"),
    }
}

pub(crate) fn proof(frame: &[u8]) -> Proof {
    *commit(frame).proof.expect("a commit has a proof")
}

/// Returns the word for what is wrong with a commit's proof; nothing where it holds.
pub(crate) fn word(frame: &[u8]) -> &'static str {
    match proof(frame) {
        Proof { fault: Some(fault), .. } => fault.word(),
        proof if proof.is_provable() => "",
        _ => "unprovable",
    }
}
