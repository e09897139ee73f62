//! A decision, and why it was taken.

use std::fmt;

use jiff::Timestamp;

use crate::observation::{Lag, LagGap};

/// How many workers there are to be, and what that was decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// How many workers there are to be.
    pub replicas: u16,
    /// How many there were to be before.
    pub from: u16,
    /// Why.
    pub reason: Reason,
    /// How many would do by demand alone, within the bounds: no step, no window, no veto but that of entries in flight.
    pub recommended: u16,
    /// Demand in workers, neither rounded nor bounded.
    pub demand: f64,
    /// Whether what waits is known, if only as a lower bound.
    pub lag_known: bool,
    /// Whether entries wait, workers are ready, and nothing was settled for a claim time.
    pub stalled: bool,
    /// Since when entries wait and none was settled, whether or not workers are ready; where the backlog cannot be seen, as it was seen
    /// last.
    pub unsettled_since: Option<Timestamp>,
    /// Whether that is for longer than it may rightly take.
    pub overdue: bool,
    /// Entries a second written to the stream; none where unknown.
    pub arrival: Option<f64>,
    /// Entries a second settled; none where unknown.
    pub service: Option<f64>,
    /// Entries that wait: undelivered, stranded, and pending beyond what ready workers rightly hold.
    pub backlog: Lag,
    /// Entries a second that one worker is taken to settle.
    pub capacity: f64,
    /// How far ingest lies behind the relay, in seconds, where it counts: while ingest is paused.
    pub relay_lag: Option<f64>,
}

/// Why there are to be so many workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// As many as demand asks for.
    AtTarget,
    /// Demand asks for more than the policy allows.
    AtMaximum,
    /// Demand asks for fewer than the policy allows.
    AtMinimum,
    /// Demand asks for more.
    ScaleUp,
    /// Entries came and there was no worker.
    ScaleFromZero,
    /// Fewer were enough for a whole window.
    ScaleDown,
    /// Nothing waits, nothing is held and nothing comes.
    ScaleToZero,
    /// Fewer would do now, but not yet for a whole window.
    Stabilising,
    /// Fewer would do, but the autoscaler has watched for less than a window.
    Restarted,
    /// Nothing waits, but workers still hold entries.
    InFlight,
    /// What waits is not known.
    LagUnknown(LagGap),
    /// Fewer might do, but of what waits only a lower bound is known.
    LagAtLeast,
    /// Fewer might do, but how fast entries arrive is not known.
    ArrivalUnknown,
    /// Fewer might do, but ingest is paused and more will come at once when it is not.
    IngestPaused,
    /// Demand asks for more, but a new version is being rolled out.
    RollingOut,
    /// Demand asks for more, but not all workers there are to be are ready.
    AwaitingReady,
    /// Demand asks for more, but it is not yet seen what the last workers added bring.
    Judging,
    /// Demand asks for more, but the last workers added brought nothing: the database is the limit.
    Saturated,
    /// Nothing is settled although workers are ready: more of them would not help.
    Stalled,
    /// The bounds of the policy changed.
    Bounds,
}

// === impl Reason ===

impl Reason {
    /// Returns a stable name in CamelCase, for conditions and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AtTarget => "AtTarget",
            Self::AtMaximum => "AtMaximum",
            Self::AtMinimum => "AtMinimum",
            Self::ScaleUp => "ScaleUp",
            Self::ScaleFromZero => "ScaleFromZero",
            Self::ScaleDown => "ScaleDown",
            Self::ScaleToZero => "ScaleToZero",
            Self::Stabilising => "Stabilising",
            Self::Restarted => "Restarted",
            Self::InFlight => "InFlight",
            Self::LagUnknown(gap) => gap.name(),
            Self::LagAtLeast => "LagAtLeast",
            Self::ArrivalUnknown => "ArrivalUnknown",
            Self::IngestPaused => "IngestPaused",
            Self::RollingOut => "RollingOut",
            Self::AwaitingReady => "AwaitingReady",
            Self::Judging => "Judging",
            Self::Saturated => "Saturated",
            Self::Stalled => "Stalled",
            Self::Bounds => "Bounds",
        }
    }

    /// Returns every reason, for metrics that want to know them beforehand.
    #[must_use]
    pub fn all() -> Vec<Self> {
        use LagGap as Gap;
        let gaps =
            [Gap::RedisUnreachable, Gap::StreamMissing, Gap::GroupMissing, Gap::KeyOfWrongType, Gap::AnswerUnreadable];
        let mut all = vec![
            Self::AtTarget,
            Self::AtMaximum,
            Self::AtMinimum,
            Self::ScaleUp,
            Self::ScaleFromZero,
            Self::ScaleDown,
            Self::ScaleToZero,
            Self::Stabilising,
            Self::Restarted,
            Self::InFlight,
            Self::LagAtLeast,
            Self::ArrivalUnknown,
            Self::IngestPaused,
            Self::RollingOut,
            Self::AwaitingReady,
            Self::Judging,
            Self::Saturated,
            Self::Stalled,
            Self::Bounds,
        ];
        all.extend(gaps.map(Self::LagUnknown));
        all
    }

    fn text(self) -> &'static str {
        match self {
            Self::AtTarget => "that is what demand asks for",
            Self::AtMaximum => "demand asks for more than the maximum",
            Self::AtMinimum => "demand asks for fewer than the minimum",
            Self::ScaleUp => "demand asks for more",
            Self::ScaleFromZero => "entries wait and there is no worker",
            Self::ScaleDown => "fewer were enough for a whole stabilisation window",
            Self::ScaleToZero => "nothing waits, nothing is held and nothing comes",
            Self::Stabilising => "fewer would do now, but not yet for a whole stabilisation window",
            Self::Restarted => "fewer would do, but the autoscaler has watched for less than a stabilisation window",
            Self::InFlight => "nothing waits, but workers still hold entries",
            Self::LagUnknown(LagGap::RedisUnreachable) => "Redis gives no answer, so the number is held",
            Self::LagUnknown(LagGap::StreamMissing) => "there is no stream, so the number is held",
            Self::LagUnknown(LagGap::GroupMissing) => "the workers' group is missing, so the number is held",
            Self::LagUnknown(LagGap::KeyOfWrongType) => "a key in Redis has the wrong type, so the number is held",
            Self::LagUnknown(LagGap::AnswerUnreadable) => {
                "the answer of Redis is not understood, so the number is held"
            }
            Self::LagAtLeast => "fewer might do, but only a lower bound is known of what waits",
            Self::ArrivalUnknown => "fewer might do, but the rate of arrivals is not known",
            Self::IngestPaused => "fewer might do, but ingest is paused and has more to come",
            Self::RollingOut => "demand asks for more, but a new version is being rolled out",
            Self::AwaitingReady => "demand asks for more, but not all workers asked for are ready",
            Self::Judging => "demand asks for more, but what the last workers added bring is not seen yet",
            Self::Saturated => "demand asks for more, but the last workers added brought nothing: see the database",
            Self::Stalled => "nothing is settled although workers are ready: see their log and the database",
            Self::Bounds => "minimum or maximum changed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

// === impl Decision ===

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replicas, from, reason, backlog, capacity, demand, .. } = self;
        let workers = if *replicas == 1 { "worker" } else { "workers" };
        if replicas == from {
            write!(f, "{replicas} {workers}: {reason}")?;
        } else {
            write!(f, "{from} to {replicas} {workers}: {reason}")?;
        }
        let arrival = Rate(self.arrival);
        let service = Rate(self.service);
        write!(f, " (arriving {arrival}, settled {service}, waiting {backlog}, ")?;
        if let Some(lag) = self.relay_lag {
            write!(f, "behind the relay {lag:.0} s, ")?;
        }
        write!(f, "one worker {capacity:.0}/s, demand {demand:.1})")
    }
}

struct Rate(Option<f64>);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => write!(f, "{rate:.0}/s"),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_camel_case_and_different() {
        let mut names: Vec<_> = Reason::all().into_iter().map(Reason::name).collect();
        assert!(
            names.iter().all(|name| name.starts_with(char::is_uppercase) && name.chars().all(char::is_alphanumeric))
        );
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_decision_says_its_numbers() {
        let decision = Decision {
            replicas: 5,
            from: 2,
            reason: Reason::ScaleUp,
            recommended: 5,
            demand: 4.71,
            lag_known: true,
            stalled: false,
            unsettled_since: None,
            overdue: false,
            arrival: Some(3_000.0),
            service: None,
            backlog: Lag::AtLeast(200),
            capacity: 800.0,
            relay_lag: Some(12.3),
        };
        assert_eq!(
            decision.to_string(),
            "2 to 5 workers: demand asks for more (arriving 3000/s, settled unknown, waiting at least 200, behind the \
             relay 12 s, one worker 800/s, demand 4.7)"
        );
    }
}
