//! What came of the controllers on a trace.

/// What both controllers did on one trace.
#[derive(Clone, Debug)]
pub struct TraceReport {
    /// The trace's name.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// How long it is.
    pub seconds: u64,
    /// Ours.
    pub ours: Outcome,
    /// KEDA's, with the `lagCount` that did best here.
    pub keda: Outcome,
    /// That `lagCount`.
    pub lag_count: u64,
    /// What KEDA 2.20.2 and later do, and the `lagCount` that did best, where they differ.
    pub later_keda: Option<(u64, Outcome)>,
}

/// What came of one controller on one trace.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The sum over all seconds of the events that waited, at the relay, in the stream or with a worker.
    pub backlog_seconds: f64,
    /// Seconds in which the oldest event had waited for longer than the objective.
    pub seconds_over: u64,
    /// The sum over all seconds of the workers asked for.
    pub worker_seconds: u64,
    /// How often the number of workers was changed.
    pub actions: u64,
    /// Second by second.
    pub(crate) samples: Vec<Sample>,
}

/// One second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) arriving: f32,
    pub(crate) workers: u16,
    /// How long the oldest event had waited, in seconds.
    pub(crate) age: f32,
}

// === impl Outcome ===

impl Outcome {
    /// Says whether it is over the objective for less time, or for the same time with fewer worker-hours.
    #[must_use]
    pub fn is_better(&self, other: &Self) -> bool {
        (self.seconds_over, self.worker_seconds) < (other.seconds_over, other.worker_seconds)
    }

    /// Returns the sum of the workers asked for, in hours.
    #[must_use]
    pub fn worker_hours(&self) -> f64 {
        self.worker_seconds as f64 / 3_600.0
    }
}
