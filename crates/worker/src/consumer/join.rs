//! How a worker comes into its group, and what becomes of a Redis that belongs to another pipeline.

use penstock_core::live::Claim;
use thiserror::Error;

use super::{Answer, Consumer, Names, surprise, text_of};

/// How a worker joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The group was there.
    There,
    /// The group was made.
    Made,
    /// The group was made again: with the one before, entries may be gone that nobody had read. Ingest is told.
    Lost,
}

/// Why a worker could not join.
#[derive(Debug, Error)]
pub(crate) enum JoinError {
    /// Redis did not do what it was asked.
    #[error("could not make the consumer group")]
    Make(#[source] fred::error::Error),
    /// The incarnation of the database could not be read.
    #[error("could not tell which database this is")]
    Database(#[source] crate::store::StoreError),
    /// The prefix belongs to another pipeline, or to this one with another database.
    #[error(
        "RedisShared: {key} says that this Redis prefix belongs to {holder}, not to {ours}: give this pipeline another \
         redis.keyPrefix or, if the holder is gone for good, delete {key}"
    )]
    Shared {
        /// The key of the claim.
        key: String,
        /// Who holds it.
        holder: String,
        /// Who wants it.
        ours: String,
    },
}

impl Consumer {
    /// Claims the prefix, and makes stream and group where they are missing.
    pub(crate) async fn join(&self, claim: &Claim) -> Result<Joined, JoinError> {
        let Names { stream, group, keys, .. } = &*self.names;
        let value = serde_json::to_string(claim).unwrap_or_default();
        let touched = vec![
            stream.to_string(),
            keys.cursor().to_owned(),
            keys.incarnation(),
            keys.pipeline(),
            keys.ingest_source(),
        ];
        let arguments = vec![text_of(group), value.into(), claim.incarnation.as_str().into()];
        let answer: Answer<(String, String)> = self.run(include_str!("join.lua"), touched, arguments).await;
        let (outcome, holder) = answer.map_err(JoinError::Make)?;
        match outcome.as_str() {
            "there" => Ok(Joined::There),
            "made" => Ok(Joined::Made),
            "lost" => Ok(Joined::Lost),
            "held" => {
                let holder = serde_json::from_str(&holder).map_or(holder, |holder| name(&holder));
                Err(JoinError::Shared { key: keys.pipeline(), holder, ours: name(claim) })
            }
            _ => Err(JoinError::Make(surprise("the script that joins the group"))),
        }
    }
}

fn name(claim: &Claim) -> String {
    format!("pipeline {} with database {}", claim.pipeline, claim.incarnation)
}
