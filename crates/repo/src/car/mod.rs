//! A CAR on its way into a repo.
//!
//! Comes in: pieces of a body, as they arrive ([`intake`]). They are cut into sections ([`sections`]), every block is hashed and laid
//! down ([`blocks`], [`spool`]), and at the end the whole tree is walked ([`walk`]). Goes out: its records in order. `read` calls. A
//! commit alone comes in a CAR of one block ([`commit`]).

pub(crate) mod blocks;
pub(crate) mod commit;
pub(crate) mod intake;
mod sections;
pub(crate) mod spool;
mod walk;
