//! The steps of a command, in their order.

use std::fmt;

/// A step of a command, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Tables of version 0.1 move into the schema `penstock`.
    MoveTables,
    /// The AppView's tables are created.
    AppView,
    /// Penstock's own tables are created or completed.
    Own,
    /// Tables that version 0.1 made meanwhile are merged.
    MergeTables,
    /// What version 0.1 kept in columns of the AppView's tables moves.
    MoveColumns,
    /// The table of the message system is created.
    Messages,
    /// Indexes are built.
    Indexes,
    /// Handles and profiles are copied.
    Profiles,
    /// Counts are recomputed.
    Recount,
    /// Tables derived from records are rebuilt.
    Rebuild,
}

// === impl Stage ===

impl Stage {
    /// Every step there is.
    pub const ALL: [Self; 10] = [
        Self::MoveTables,
        Self::AppView,
        Self::Own,
        Self::MergeTables,
        Self::MoveColumns,
        Self::Messages,
        Self::Indexes,
        Self::Profiles,
        Self::Recount,
        Self::Rebuild,
    ];

    /// Returns its number, from 1.
    #[must_use]
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// Returns what it does.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::MoveTables => "move tables of version 0.1 into the schema penstock",
            Self::AppView => "create missing tables of the AppView",
            Self::Own => "create or complete Penstock's own tables",
            Self::MergeTables => "merge tables that version 0.1 created again",
            Self::MoveColumns => "move columns of version 0.1 out of the AppView's tables",
            Self::Messages => "create the table of the message system",
            Self::Indexes => "build missing indexes",
            Self::Profiles => "copy handles and profiles",
            Self::Recount => "recompute counts",
            Self::Rebuild => "rebuild notifications, thread contexts and viewer states",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.number(), self.title())
    }
}
