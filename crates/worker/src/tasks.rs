//! The tasks of a worker: each has a name, and when one of them ends too early the worker does.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};

use crate::error::WorkerError;

/// The running tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    /// Those that end when reading stops and everything is settled.
    running: JoinSet<Result<(), JoinError>>,
    /// Those that go on until then.
    last: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

type Ended = Result<(Id, Result<(), JoinError>), JoinError>;

// === impl Tasks ===

impl Tasks {
    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async move {
            task.await;
            Ok(())
        });
    }

    /// Starts a task that fails when one that it waits for died.
    pub(crate) fn spawn_fallible(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), JoinError>> + Send + 'static,
    ) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name);
    }

    pub(crate) fn spawn_last(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.last.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until a task ends, which none should before it is asked to.
    pub(crate) async fn failure(&mut self) -> WorkerError {
        tokio::select! {
            Some(ended) = self.running.join_next_with_id() => self.error(ended, true),
            Some(ended) = self.last.join_next_with_id() => self.error(ended.map(|(id, ())| (id, Ok(()))), true),
            else => None,
        }
        .unwrap_or(WorkerError::TaskEnded { name: "all" })
    }

    /// Waits until all but the last tasks have ended.
    ///
    /// # Errors
    /// One of them died.
    pub(crate) async fn drained(&mut self) -> Result<(), WorkerError> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next_with_id().await {
            if let Some(error) = self.error(ended, false) {
                result = Err(error);
            }
        }
        result
    }

    /// Ends whatever still runs, after some time by force.
    pub(crate) async fn end(&mut self, patience: Duration) {
        let all = async {
            while self.running.join_next().await.is_some() {}
            while self.last.join_next().await.is_some() {}
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            self.running.shutdown().await;
            self.last.shutdown().await;
        }
    }

    fn error(&self, ended: Ended, too_early: bool) -> Option<WorkerError> {
        let name = |id: &Id| self.names.get(id).copied().unwrap_or("unknown");
        match ended {
            Ok((id, Ok(()))) => too_early.then(|| WorkerError::TaskEnded { name: name(&id) }),
            Ok((id, Err(source))) => Some(WorkerError::TaskDied { name: name(&id), source }),
            Err(source) => Some(WorkerError::TaskDied { name: name(&source.id()), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_too_early_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("forever", std::future::pending());
        tasks.spawn("brief", async {});
        assert_eq!(tasks.failure().await.to_string(), "task brief ended before it was asked to");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("other", std::future::ready(()));
        tasks.spawn_last("bad", async { panic!("as the test wants it") });
        tasks.drained().await.unwrap();
        assert_eq!(tasks.failure().await.to_string(), "task bad died");
    }
}
