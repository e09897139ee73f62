//! What a worker asks of Redis and PostgreSQL, each in words for the log and the checks.

/// What a worker asks of Redis and PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Reading new entries.
    Read,
    /// Taking over idle entries.
    Claim,
    /// Renewing what is held.
    Refresh,
    /// Acknowledging what was applied.
    Acknowledge,
    /// Adding a dead letter in Redis.
    Bury,
    /// Recording how often an entry was tried alone.
    RecordCrashes,
    /// Reading the backlog of the group.
    Backlog,
    /// Publishing counts.
    Publish,
    /// Finding the oldest entry that can still come.
    Oldest,
    /// Applying a batch.
    Apply,
    /// Storing a dead letter in PostgreSQL.
    Keep,
    /// Reading counts.
    Count,
    /// Removing the rows of deleted accounts.
    Sweep,
    /// Settling claims that accounts are gone.
    SettleClaims,
    /// Checking handles.
    CheckHandles,
    /// Giving counts to posts that another program made.
    Settle,
    /// Pruning tombstones.
    Prune,
    /// Creating the group again.
    Join,
    /// Finding out what is settled.
    Survey,
    /// Saving the checkpoint.
    Checkpoint,
    /// Taking queued messages.
    TakeMessages,
    /// Removing messages that are settled.
    SettleMessages,
    /// Announcing this worker to the message buffer, and taking over the messages of dead ones.
    AnnounceMessages,
    /// Publishing the statistics of messages.
    ShowMessages,
    /// Writing messages.
    WriteMessages,
    /// Reading the dead letters of ingest, to copy them.
    Copy,
    /// Reading which repos ingest found desynchronized.
    ReadMarks,
    /// Marking them.
    Mark,
    /// Measuring tables.
    Measure,
    /// Measuring keys.
    MeasureKeys,
}

// === impl Action ===

impl Action {
    pub(crate) const ALL: [Self; 30] = [
        Self::Read,
        Self::Claim,
        Self::Refresh,
        Self::Acknowledge,
        Self::Bury,
        Self::RecordCrashes,
        Self::Backlog,
        Self::Publish,
        Self::Oldest,
        Self::Apply,
        Self::Keep,
        Self::Count,
        Self::Sweep,
        Self::SettleClaims,
        Self::CheckHandles,
        Self::Settle,
        Self::Prune,
        Self::Join,
        Self::Survey,
        Self::Checkpoint,
        Self::TakeMessages,
        Self::SettleMessages,
        Self::AnnounceMessages,
        Self::ShowMessages,
        Self::WriteMessages,
        Self::Copy,
        Self::ReadMarks,
        Self::Mark,
        Self::Measure,
        Self::MeasureKeys,
    ];

    /// Names it in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Read => "read new entries",
            Self::Claim => "claim idle entries",
            Self::Refresh => "refresh held entries",
            Self::Acknowledge => "acknowledge entries",
            Self::Bury => "add a dead letter",
            Self::RecordCrashes => "record the crashes of an entry",
            Self::Backlog => "read the backlog",
            Self::Publish => "publish counts",
            Self::Oldest => "find the oldest entry",
            Self::Apply => "apply a batch",
            Self::Keep => "store a dead letter",
            Self::Count => "read the counts",
            Self::Sweep => "remove rows of deleted accounts",
            Self::SettleClaims => "settle claims that accounts are gone",
            Self::CheckHandles => "check handles",
            Self::Settle => "apply waiting counts",
            Self::Prune => "prune tombstones",
            Self::Join => "join the consumer group",
            Self::Survey => "find out what is settled",
            Self::Checkpoint => "save the checkpoint",
            Self::TakeMessages => "take queued messages",
            Self::SettleMessages => "remove written messages",
            Self::AnnounceMessages => "announce this worker to the message buffer",
            Self::ShowMessages => "publish the message statistics",
            Self::WriteMessages => "write messages",
            Self::Copy => "copy dead letters of ingest",
            Self::ReadMarks => "read which repos are desynchronized",
            Self::Mark => "mark desynchronized repos",
            Self::Measure => "measure tables",
            Self::MeasureKeys => "measure keys",
        }
    }

    /// Names the server that it is asked of; its check has the same name.
    pub(crate) fn server(self) -> &'static str {
        match self {
            Self::Apply
            | Self::Keep
            | Self::Count
            | Self::Sweep
            | Self::SettleClaims
            | Self::CheckHandles
            | Self::Settle
            | Self::Prune
            | Self::Checkpoint
            | Self::WriteMessages
            | Self::Mark
            | Self::Measure => "postgres",
            _ => "redis",
        }
    }

    /// Returns whether it is asked of PostgreSQL.
    pub(crate) fn is_of_postgres(self) -> bool {
        self.server() == "postgres"
    }

    /// Returns whether a worker that cannot do it is not ready. What is left of deleted accounts can wait, as can marks; sizes are not needed.
    pub(crate) fn decides_readiness(self) -> bool {
        !matches!(
            self,
            Self::Sweep
                | Self::SettleClaims
                | Self::CheckHandles
                | Self::ReadMarks
                | Self::Mark
                | Self::Measure
                | Self::MeasureKeys
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_stand_where_they_are_looked_up() {
        for (place, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, place, "{action:?}");
        }
    }
}
