//! The parts of a pipeline that have pods.

use std::collections::BTreeMap;

use penstock_core::settings::{Settings, Verification};

use crate::crd::{FirehosePipelineSpec, Pod};

/// Labels or annotations.
type Texts = BTreeMap<String, String>;

/// A part that has pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The one writer of the stream.
    Ingest,
    /// The fleet that writes PostgreSQL.
    Worker,
    /// The HTTP API.
    Dashboard,
    /// The fleet that reads repos from their hosts.
    Heal,
    /// The Job that creates or migrates the tables.
    Migrate,
}

// === impl Part ===

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Worker, Self::Dashboard, Self::Heal, Self::Migrate];

    /// Lists the parts that a pipeline has. One that is suspended keeps its Deployments, without pods, and migrates nothing. While it has
    /// `backfills` at work, it has healers.
    pub fn enabled(spec: &FirehosePipelineSpec, backfills: bool) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |part| match part {
            Self::Ingest => spec.ingest.enabled,
            Self::Worker => spec.workers.enabled,
            Self::Dashboard => spec.dashboard.enabled,
            Self::Heal => spec.heal.enabled || backfills,
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
            Self::Heal => "heal",
            Self::Migrate => "migrate",
        }
    }

    /// Returns the field that speaks of its pods.
    pub(crate) fn pod_field(self) -> &'static str {
        match self {
            Self::Ingest => "ingest.pod",
            Self::Worker | Self::Migrate => "workers.pod",
            Self::Dashboard => "dashboard.pod",
            Self::Heal => "heal.pod",
        }
    }

    /// Returns what was written of its pods. The Job's run where the workers' do.
    pub(crate) fn pod(self, spec: &FirehosePipelineSpec) -> &Pod {
        match self {
            Self::Ingest => &spec.ingest.pod,
            Self::Worker | Self::Migrate => &spec.workers.pod,
            Self::Dashboard => &spec.dashboard.pod,
            Self::Heal => &spec.heal.pod,
        }
    }

    /// Returns labels and annotations of its pods alone, over those of [`Self::pod`].
    pub(crate) fn of_its_own(self, spec: &FirehosePipelineSpec) -> (Texts, Texts) {
        let job = &spec.postgres.migration_job;
        match self {
            Self::Migrate => (job.pod_labels.clone(), job.pod_annotations.clone()),
            Self::Ingest | Self::Worker | Self::Dashboard | Self::Heal => (Texts::new(), Texts::new()),
        }
    }

    /// Returns how much memory its caches may take, in bytes, by the settings as it reads them.
    pub(super) fn caches(self, own: &Settings) -> u64 {
        let repos = if own.verify.mode == Verification::Off { 0 } else { own.verify.memory };
        let identities = if own.identity.enabled { own.identity.memory } else { 0 };
        match self {
            Self::Ingest => repos.saturating_add(identities),
            Self::Worker => identities,
            // Without its host no repo is read, so these resolve whatever the others do.
            Self::Heal => own.identity.memory.saturating_add(own.heal.spill),
            Self::Dashboard | Self::Migrate => 0,
        }
    }

    /// Returns the sections of the settings that it reads: no other one's change restarts it.
    pub(super) fn sections(self) -> &'static [&'static str] {
        match self {
            Self::Ingest => {
                &["relay", "redis", "postgres", "ingest", "verify", "filter", "identity", "telemetry", "pipeline"]
            }
            Self::Worker => &["redis", "postgres", "worker", "identity", "telemetry", "pipeline"],
            Self::Dashboard => {
                &["redis", "postgres", "dashboard", "filter", "identity", "heal", "telemetry", "pipeline"]
            }
            Self::Heal => {
                &["relay", "redis", "postgres", "worker", "filter", "identity", "heal", "telemetry", "pipeline"]
            }
            // Nothing but the database itself is a reason to migrate again.
            Self::Migrate => &["postgres"],
        }
    }
}
