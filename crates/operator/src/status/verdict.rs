//! A condition without its times.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::crd::{Condition, ConditionStatus};

/// A condition without its times.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) kind: &'static str,
    pub(crate) status: ConditionStatus,
    pub(crate) reason: String,
    pub(crate) message: String,
}

// === impl Verdict ===

impl Verdict {
    pub(crate) fn new(
        kind: &'static str,
        status: ConditionStatus,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, status, reason: reason.into(), message: message.into() }
    }

    /// Gives it its times: that of the last change stays while the status does.
    pub(crate) fn into_condition(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let before = before.iter().find(|before| before.kind == self.kind);
        let since =
            before.filter(|before| before.status == self.status).map(|before| before.last_transition_time.clone());
        Condition {
            kind: self.kind.to_owned(),
            status: self.status,
            reason: self.reason,
            message: self.message,
            last_transition_time: since.unwrap_or(Time(now)),
            observed_generation: generation,
        }
    }
}
