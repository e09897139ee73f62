//! The running parts of a pipeline, and the order in which they end.

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// The parts, in the order in which they are told to end: what writes before what is written to.
const PARTS: [&str; 4] = ["ingest", "worker", "dashboard", "recording"];

pub(super) const INGEST: usize = 0;
pub(super) const WORKER: usize = 1;
pub(super) const DASHBOARD: usize = 2;
pub(super) const RECORDING: usize = 3;

/// The running parts, each with what ends it.
pub(super) struct Parts {
    tasks: JoinSet<Result<(), Error>>,
    ids: Vec<(Id, usize)>,
    ends: [CancellationToken; PARTS.len()],
}

impl Parts {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), ids: Vec::new(), ends: std::array::from_fn(|_| CancellationToken::new()) }
    }

    /// Returns what ends a part.
    pub(super) fn end(&self, part: usize) -> CancellationToken {
        self.ends.get(part).cloned().unwrap_or_default()
    }

    pub(super) fn spawn(&mut self, part: usize, task: impl Future<Output = Result<(), Error>> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.ids.push((id, part));
    }

    /// Waits until a part ends that was not told to, and says what that means.
    pub(super) async fn ended(&mut self) -> Result<(), Error> {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let part = self.part_of(&ended);
            self.ids.retain(|(_, running)| Some(*running) != part);
            let was_told = part.and_then(|part| self.ends.get(part)).is_some_and(CancellationToken::is_cancelled);
            let outcome = gone(part, ended);
            if outcome.is_err() || !was_told {
                return outcome;
            }
        }
        std::future::pending().await
    }

    /// Ends one part after the other, and waits for each.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for (part, end) in self.ends.clone().into_iter().enumerate() {
            end.cancel();
            while self.ids.iter().any(|(_, running)| *running == part) {
                let Some(ended) = self.tasks.join_next_with_id().await else { break };
                let ended_part = self.part_of(&ended);
                self.ids.retain(|(_, running)| Some(*running) != ended_part);
                outcome = outcome.and(gone(ended_part, ended));
            }
        }
        outcome
    }

    fn part_of(&self, ended: &Ended) -> Option<usize> {
        let id = match ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        self.ids.iter().find(|(running, _)| *running == id).map(|(_, part)| *part)
    }
}

type Ended = Result<(Id, Result<(), Error>), JoinError>;

/// Says what a part that ended means.
fn gone(part: Option<usize>, ended: Ended) -> Result<(), Error> {
    match ended {
        Ok((_, ended)) => ended,
        Err(source) => {
            let part = part.and_then(|part| PARTS.get(part)).copied().unwrap_or("a part");
            Err(Error::Part { part, source })
        }
    }
}
