//! The tasks of a service: each has a name, and when one ends too early the service does.

use std::collections::HashMap;
use std::time::Duration;

use thiserror::Error;
use tokio::task::{Id, JoinError, JoinSet};

/// The running tasks of a service.
#[derive(Debug, Default)]
pub struct Tasks {
    /// Those that end when the service is asked to end.
    running: JoinSet<Result<(), JoinError>>,
    /// Those that go on until all others have ended.
    last: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// Why a service cannot go on.
#[derive(Debug, Error)]
pub enum TaskError {
    /// A task that must run as long as the service ended before it.
    #[error("task {task} ended unexpectedly")]
    Ended {
        /// Its name.
        task: &'static str,
    },
    /// A task panicked.
    #[error("task {task} failed")]
    Failed {
        /// Its name.
        task: &'static str,
        /// How it ended.
        source: JoinError,
    },
}

type Ended = Result<(Id, Result<(), JoinError>), JoinError>;

// === impl Tasks ===

impl Tasks {
    /// Starts a task.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async move {
            task.await;
            Ok(())
        });
    }

    /// Starts a task that fails when a task of its own did.
    pub fn spawn_fallible(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), JoinError>> + Send + 'static,
    ) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Starts a task that the others need until they have ended.
    pub fn spawn_last(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.last.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until a task ends, which none should before the service is asked to end.
    pub async fn first_to_end(&mut self) -> TaskError {
        tokio::select! {
            Some(ended) = self.running.join_next_with_id() => self.error(ended, true),
            Some(ended) = self.last.join_next_with_id() => self.error(ended.map(|(id, ())| (id, Ok(()))), true),
            else => None,
        }
        .unwrap_or(TaskError::Ended { task: "any" })
    }

    /// Waits until all but the last tasks have ended.
    ///
    /// # Errors
    /// One of them panicked.
    pub async fn all_to_end(&mut self) -> Result<(), TaskError> {
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next_with_id().await {
            if let Some(error) = self.error(ended, false) {
                result = Err(error);
            }
        }
        result
    }

    /// Waits until all have ended, and aborts those that take longer than `patience`.
    pub async fn end(&mut self, patience: Duration) {
        let all = async {
            while self.running.join_next().await.is_some() {}
            while self.last.join_next().await.is_some() {}
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            self.shutdown().await;
        }
    }

    /// Aborts all that still run, wherever they are.
    pub async fn shutdown(&mut self) {
        self.running.shutdown().await;
        self.last.shutdown().await;
    }

    fn error(&self, ended: Ended, too_early: bool) -> Option<TaskError> {
        let name = |id: &Id| self.names.get(id).copied().unwrap_or("unknown");
        match ended {
            Ok((id, Ok(()))) => too_early.then(|| TaskError::Ended { task: name(&id) }),
            Ok((id, Err(source))) => Some(TaskError::Failed { task: name(&id), source }),
            Err(source) => Some(TaskError::Failed { task: name(&source.id()), source }),
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
        assert_eq!(tasks.first_to_end().await.to_string(), "task brief ended unexpectedly");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("other", std::future::ready(()));
        tasks.spawn_last("bad", async { panic!("as the test wants it") });
        tasks.all_to_end().await.unwrap();
        assert_eq!(tasks.first_to_end().await.to_string(), "task bad failed");
    }
}
