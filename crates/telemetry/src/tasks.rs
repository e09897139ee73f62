//! The tasks that must run as long as a service: each has a name, and when one ends too early the service does.

use thiserror::Error;
use tokio::task::{Id, JoinError, JoinSet};

/// The running tasks of a service.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: Vec<(Id, &'static str)>,
}

/// Why a service cannot go on.
#[derive(Debug, Error)]
pub enum TaskError {
    /// A task that must run as long as the service ended before it.
    #[error("the task {task} ended by itself")]
    Ended {
        /// Its name.
        task: &'static str,
    },
    /// A task panicked.
    #[error("the task {task} failed")]
    Failed {
        /// Its name.
        task: &'static str,
        /// How it ended.
        source: JoinError,
    },
}

// === impl Tasks ===

impl Tasks {
    /// Starts a task.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.push((id, name));
    }

    /// Waits for one that ends before it is told to.
    pub async fn first_to_end(&mut self) -> TaskError {
        match self.set.join_next_with_id().await {
            Some(Ok((id, ()))) => TaskError::Ended { task: self.name(id) },
            Some(Err(source)) => TaskError::Failed { task: self.name(source.id()), source },
            None => TaskError::Ended { task: "any" },
        }
    }

    /// Waits until all have ended.
    pub async fn all_to_end(&mut self) {
        while self.set.join_next().await.is_some() {}
    }

    /// Ends all that still run, wherever they are.
    pub async fn shutdown(&mut self) {
        self.set.shutdown().await;
    }

    fn name(&self, id: Id) -> &'static str {
        self.names.iter().find(|(known, _)| *known == id).map_or("unknown", |(_, name)| name)
    }
}
