//! The parts of a pipeline that have pods.

use crate::crd::{FirehosePipelineSpec, Pod};

/// A part that has pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The one writer of the stream.
    Ingest,
    /// The fleet that writes PostgreSQL.
    Worker,
    /// The HTTP API.
    Dashboard,
    /// The Job that makes or completes the tables.
    Migrate,
}

// === impl Part ===

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Worker, Self::Dashboard, Self::Migrate];

    /// Lists the parts that a pipeline has. One that is suspended keeps its Deployments, without pods, and migrates nothing.
    pub fn enabled(spec: &FirehosePipelineSpec) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|part| match part {
            Self::Ingest => spec.ingest.enabled,
            Self::Worker => spec.workers.enabled,
            Self::Dashboard => spec.dashboard.enabled,
            Self::Migrate => spec.workers.enabled && spec.postgres.migrate && !spec.suspend,
        })
    }

    /// Returns the value of the label app.kubernetes.io/component, which is also the command and the end of names.
    #[must_use]
    pub fn component(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Worker => "worker",
            Self::Dashboard => "dashboard",
            Self::Migrate => "migrate",
        }
    }

    /// Returns the field that speaks of its pods.
    pub(crate) fn pod_field(self) -> &'static str {
        match self {
            Self::Ingest => "ingest.pod",
            Self::Worker | Self::Migrate => "workers.pod",
            Self::Dashboard => "dashboard.pod",
        }
    }

    /// Returns what was written of its pods. The Job's run where the workers' do.
    pub(crate) fn pod(self, spec: &FirehosePipelineSpec) -> &Pod {
        match self {
            Self::Ingest => &spec.ingest.pod,
            Self::Worker | Self::Migrate => &spec.workers.pod,
            Self::Dashboard => &spec.dashboard.pod,
        }
    }

    /// Returns the sections of the settings that it reads: no other one's change restarts it.
    pub(super) fn sections(self) -> &'static [&'static str] {
        match self {
            Self::Ingest => &["relay", "redis", "postgres", "ingest", "telemetry", "pipeline"],
            Self::Worker => &["redis", "postgres", "worker", "telemetry", "pipeline"],
            Self::Dashboard => &["redis", "postgres", "dashboard", "telemetry", "pipeline"],
            // Nothing but the database itself is a reason to migrate again.
            Self::Migrate => &["postgres"],
        }
    }
}
