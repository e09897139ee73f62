//! How a worker joins its group, unless the Redis prefix belongs to another pipeline.

use penstock_core::causes::chain;
use penstock_core::live::{Claim, state};
use penstock_core::script;
use penstock_core::starts::{self, Started};
use thiserror::Error;
use tracing::debug;

use super::client::{Answer, Consumer, Names, surprise, text_of};

/// How a worker joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The group existed.
    There,
    /// The group was created.
    Made,
    /// The group was created again. Unread entries may have been lost with the one before; ingest is informed.
    Lost,
}

/// Why a worker could not join.
#[derive(Debug, Error)]
pub(crate) enum JoinError {
    /// The request to Redis failed.
    #[error("could not create the consumer group")]
    Make(#[source] fred::error::Error),
    /// The incarnation of the database could not be read.
    #[error("could not identify the database")]
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
    /// Claims the prefix, and makes both streams and their groups where they are missing.
    pub(crate) async fn join(&self, claim: &Claim) -> Result<Joined, JoinError> {
        let Names { group, consumer, keys, .. } = &*self.names;
        let value = serde_json::to_string(claim).unwrap_or_default();
        let touched = vec![
            keys.stream().to_owned(),
            keys.cursor().to_owned(),
            keys.incarnation(),
            keys.pipeline(),
            keys.ingest_source(),
            keys.bulk().to_owned(),
            keys.ingest_state(),
        ];
        let arguments = vec![
            text_of(group),
            value.into(),
            claim.incarnation.as_str().into(),
            text_of(consumer),
            state::BULK.into(),
        ];
        let answer: Answer<(String, String)> =
            script::run(&self.client, include_str!("join.lua"), touched, arguments).await;
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

    /// Tells the dashboard when this worker began; nothing depends on it.
    pub(crate) async fn note_start(&self) {
        let started = Started::now("worker", &self.names.consumer);
        if let Err(error) = starts::note(&self.client, &self.names.keys, &started).await {
            debug!(error = chain(&error), "could not note the start");
        }
    }
}

fn name(claim: &Claim) -> String {
    format!("pipeline {} with database {}", claim.pipeline, claim.incarnation)
}
