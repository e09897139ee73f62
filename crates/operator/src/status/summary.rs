//! The status that follows from the facts.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_autoscale::Decision;

use crate::crd::{IngestStatus, MigrationStatus, PipelineStatus, WorkersStatus};

use super::facts::{Facts, Migration};
use super::{conditions, text};

impl Facts {
    /// Makes the status of them. What did not change keeps its time.
    pub(crate) fn status(
        &self,
        decision: Option<&Decision>,
        scaled: Option<Timestamp>,
        before: &PipelineStatus,
        now: Timestamp,
    ) -> PipelineStatus {
        let (phase, conditions) = conditions::judge(self, decision, &before.conditions);
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

    fn ingest_status(&self, now: Timestamp) -> IngestStatus {
        let Some(snapshot) = self.snapshot() else { return IngestStatus::default() };
        let status = snapshot.status.as_ref();
        let lag = snapshot.lag(now).filter(|_| !self.suspend);
        IngestStatus {
            connected: Some(status.is_some_and(|status| status.connected)),
            url: status.map(|status| status.url.clone()),
            cursor: snapshot.cursor.clone().or_else(|| status.and_then(|status| status.current_cursor.clone())),
            lag_seconds: lag.map(text::round_seconds),
            lag: lag.map(text::seconds),
            paused: Some(snapshot.paused),
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
            _ if self.fixed => (Some("Fixed".to_owned()), Some("set by workers.replicas".to_owned())),
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
