//! Why a record has no place in its table.

use thiserror::Error;

/// Why a record has no place in its table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// A field that the row needs.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field that the row is found by.
    #[error("{field} is longer than {max} bytes")]
    TooLong { field: &'static str, max: usize },
    /// PostgreSQL holds no NUL, and without it the value would be another one.
    #[error("{0} holds a nul character")]
    Nul(&'static str),
    /// The record is a list, a text or a number.
    #[error("record is not an object")]
    NotAnObject,
}

// === impl Misfit ===

impl Misfit {
    /// Returns whether nothing is wrong with the record, but for the column that it does not fit.
    pub(super) fn is_want_of_room(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::Nul(_))
    }
}
