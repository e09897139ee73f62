//! The status of a pipeline: facts in, conditions and numbers out, written when they changed.

mod conditions;
mod publish;
mod text;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_autoscale::Decision;
use penstock_core::live::{Claim, Status};

use crate::crd::{IngestStatus, MigrationStatus, PipelineStatus, WorkersStatus};
use crate::reconcile::Rollout;

pub(crate) use publish::{Written, publish, publish_malformed};

/// What is known of a pipeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    /// The generation that was last looked at.
    pub(crate) generation: Option<i64>,
    /// The pipeline's name, for what a person is told to do.
    pub(crate) name: String,
    pub(crate) deleting: bool,
    pub(crate) suspend: bool,
    /// Whether the number of workers is written in the resource.
    pub(crate) fixed: bool,
    pub(crate) ingest: Part,
    pub(crate) workers: Part,
    pub(crate) dashboard: Part,
    pub(crate) outcome: Outcome,
    pub(crate) migration: Migration,
    /// The hash of the schema that the workers need.
    pub(crate) schema: String,
    /// The label selector of the workers' pods.
    pub(crate) selector: Option<String>,
    /// What was asked for and cannot be had in this cluster.
    pub(crate) left_out: Vec<String>,
    /// What Redis showed at the last look; none before the first.
    pub(crate) look: Option<Look>,
    /// Entries that workers hold; none where that is not known.
    pub(crate) pending: Option<u64>,
    /// Entries that lie with a consumer that lets them lie, as far as known.
    pub(crate) stranded: u64,
}

/// A part that has pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    pub(crate) enabled: bool,
    /// Its Deployment, where there is one.
    pub(crate) rollout: Option<Rollout>,
}

/// How the last reconcile ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Outcome {
    /// There was none yet.
    #[default]
    None,
    /// Everything stands as it should.
    Applied,
    /// The resource cannot be carried out as it is written.
    Refused(Why),
    /// Something in the cluster does not let it be carried out.
    Failed(Why),
}

/// A reason in one word, and in a sentence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Why {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What became of the tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Migration {
    /// Nobody asked for it.
    #[default]
    NotOurs,
    /// The Job has not come to its end.
    Running {
        job: String,
    },
    Done,
    Failed {
        job: String,
    },
}

/// What Redis showed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Look {
    /// Nothing, and why.
    Away(String),
    Seen(Box<Pulse>),
}

/// What ingest says of itself in Redis, and whose the prefix is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pulse {
    /// Absent while nobody ingests.
    pub(crate) status: Option<Status>,
    pub(crate) cursor: Option<String>,
    pub(crate) event_time: Option<Timestamp>,
    pub(crate) paused: bool,
    /// How many times events are known to be lost.
    pub(crate) data_loss: u64,
    pub(crate) claim: Option<Claim>,
    /// Who this pipeline is in the claim.
    pub(crate) ours: String,
    /// The key of the claim, and that of ingest's state.
    pub(crate) claim_key: String,
    pub(crate) state_key: String,
}

// === impl Facts ===

impl Facts {
    /// Makes the status of them. What did not change keeps its time.
    pub(crate) fn status(
        &self,
        decision: Option<&Decision>,
        scaled: Option<Timestamp>,
        before: &PipelineStatus,
        now: Timestamp,
    ) -> PipelineStatus {
        let (phase, conditions) = conditions::judge(self, decision);
        let migration = match self.migration {
            Migration::NotOurs => None,
            Migration::Done => Some(true),
            Migration::Running { .. } | Migration::Failed { .. } => Some(false),
        };
        PipelineStatus {
            observed_generation: self.generation,
            phase: Some(phase),
            conditions: conditions
                .into_iter()
                .map(|verdict| verdict.into_condition(&before.conditions, self.generation, now))
                .collect(),
            ingest: Some(self.ingest_status(now)),
            workers: self.workers.enabled.then(|| self.workers_status(decision, scaled)),
            migration: migration.map(|done| MigrationStatus { schema: self.schema.clone(), done }),
        }
    }

    /// Returns what Redis showed, where it showed anything.
    pub(crate) fn pulse(&self) -> Option<&Pulse> {
        match &self.look {
            Some(Look::Seen(pulse)) => Some(pulse),
            Some(Look::Away(_)) | None => None,
        }
    }

    /// Says whether everything is there but the first look at Redis.
    pub(crate) fn awaits_look(&self) -> bool {
        self.outcome == Outcome::Applied && !self.deleting && !self.suspend && self.look.is_none()
    }

    fn ingest_status(&self, now: Timestamp) -> IngestStatus {
        let Some(pulse) = self.pulse() else { return IngestStatus::default() };
        let status = pulse.status.as_ref();
        let lag = pulse.lag(now).filter(|_| !self.suspend);
        IngestStatus {
            connected: Some(status.is_some_and(|status| status.connected)),
            url: status.map(|status| status.url.clone()),
            cursor: pulse.cursor.clone().or_else(|| status.and_then(|status| status.current_cursor.clone())),
            lag_seconds: lag.map(text::round_seconds),
            lag: lag.map(text::seconds),
            paused: Some(pulse.paused),
        }
    }

    fn workers_status(&self, decision: Option<&Decision>, scaled: Option<Timestamp>) -> WorkersStatus {
        let rollout = self.workers.rollout.clone().unwrap_or_default();
        let desired = match decision {
            _ if self.suspend => 0,
            Some(decision) => i32::from(decision.replicas),
            None => rollout.wanted,
        };
        let (reason, message) = match decision {
            _ if self.suspend => (Some("Suspended".to_owned()), Some("spec.suspend is true".to_owned())),
            _ if self.fixed => (Some("Fixed".to_owned()), Some("workers.replicas says so".to_owned())),
            Some(decision) => (Some(decision.reason.name().to_owned()), Some(decision.to_string())),
            None => (None, None),
        };
        WorkersStatus {
            replicas: rollout.replicas,
            ready: rollout.ready,
            desired,
            summary: Some(format!("{}/{desired}", rollout.ready)),
            selector: self.selector.clone(),
            backlog: decision.map(|decision| text::backlog(decision.backlog)),
            pending: self.pending.map(|pending| i64::try_from(text::round(pending)).unwrap_or(i64::MAX)),
            arrival_rate: decision.and_then(|decision| decision.arrival).map(text::rate),
            service_rate: decision.and_then(|decision| decision.service).map(text::rate),
            reason,
            message,
            last_scale_time: scaled.map(Time),
        }
    }
}

// === impl Pulse ===

impl Pulse {
    /// Returns how far ingest is behind, in seconds.
    pub(crate) fn lag(&self, now: Timestamp) -> Option<i64> {
        self.event_time.map(|event| now.duration_since(event).as_secs().max(0))
    }

    /// Returns who holds the prefix, where that is not this pipeline.
    pub(crate) fn other_holder(&self) -> Option<&str> {
        self.claim.as_ref().map(|claim| claim.pipeline.as_str()).filter(|holder| *holder != self.ours)
    }
}
