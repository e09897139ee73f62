//! What a simulation found.

use std::fmt;
use std::time::Duration;

use super::plot;
use super::world::FleetModel;

/// What both controllers did on each trace.
#[derive(Clone, Debug)]
pub struct Report {
    /// How long an event may wait.
    pub objective: Duration,
    /// How the fleet behaved.
    pub fleet: FleetModel,
    /// One for each trace.
    pub traces: Vec<TraceReport>,
}

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

// === impl Report ===

impl Report {
    /// Writes the table alone, in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| trace | controller | over the objective | backlog-seconds | worker-hours | scale actions |\n\
             |---|---|---:|---:|---:|---:|\n",
        );
        for trace in &self.traces {
            let keda = format!("KEDA, lagCount {}", trace.lag_count);
            for (name, who, outcome) in [(trace.name.as_str(), "Penstock", &trace.ours), ("", &keda, &trace.keda)] {
                let (over, waited) = (time(outcome.seconds_over), amount(outcome.backlog_seconds));
                let (hours, actions) = (outcome.worker_hours(), outcome.actions);
                table.push_str(&format!("| {name} | {who} | {over} | {waited} | {hours:.1} | {actions} |\n"));
            }
        }
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FleetModel { capacity, database_limit, start_up, .. } = self.fleet;
        writeln!(
            f,
            "One worker settles {capacity:.0} events/s and is ready after {} s; the database takes {database_limit:.0}/s.\n\
             The objective: no event waits for more than {} s. KEDA has the lagCount that does best on each trace.\n",
            start_up.as_secs(),
            self.objective.as_secs(),
        )?;
        for trace in &self.traces {
            writeln!(f, "{}: {}\n{}", trace.name, trace.about, plot::draw(trace))?;
        }
        f.write_str(&self.table())
    }
}

fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

fn amount(count: f64) -> String {
    match count {
        1e9.. => format!("{:.1} G", count / 1e9),
        1e6.. => format!("{:.1} M", count / 1e6),
        1e3.. => format!("{:.1} k", count / 1e3),
        _ => format!("{count:.0}"),
    }
}
