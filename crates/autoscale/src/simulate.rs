//! Runs the decision on traces of arrivals, beside KEDA's rule, and measures both.
//!
//! The same fleet, the same arrivals, the same seeds: a run can be repeated to the digit.

mod controllers;
mod csv;
mod keda;
mod outcome;
mod plot;
mod report;
mod svg;
#[cfg(test)]
mod tests;
mod trace;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::policy::Policy;
use controllers::Ours;
use keda::{Keda, NilLag};
use trace::{LagReport, Trace};
use world::{Controller, World};

pub use csv::CsvError;
pub use outcome::{Outcome, TraceReport};
pub use report::Report;
pub use trace::BuiltIn;
pub use world::FleetModel;

/// The values of `lagCount` from which KEDA gets the best on each trace.
const LAG_COUNTS: [u64; 14] = [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];

/// What is simulated.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which arrivals. Default: all that are built in.
    pub trace: TraceChoice,
    /// What differs from the default policy.
    pub policy: Overrides,
    /// How the fleet behaves.
    pub fleet: FleetModel,
    /// How long an event may wait between the relay and PostgreSQL before the objective is missed. Default 30 s.
    pub objective: Objective,
    /// Where a picture is written, besides the text.
    pub svg: Option<PathBuf>,
}

/// Which arrivals are simulated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TraceChoice {
    /// Every built-in trace.
    #[default]
    All,
    /// One of them.
    BuiltIn(BuiltIn),
    /// A file of lines `seconds,events_per_second`: from that second on, so many events arrive each second. The last line
    /// says when it ends.
    Csv(PathBuf),
}

/// The longest time that an event may wait before the objective is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objective(pub Duration);

/// What differs from the default policy; none leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overrides {
    /// The fewest workers, of both controllers.
    pub min: Option<u16>,
    /// The most workers, of both controllers. Default here: 20.
    pub max: Option<u16>,
    /// As in [`Policy`].
    pub step_up: Option<u16>,
    /// As in [`Policy`].
    pub step_down: Option<u16>,
    /// As in [`Policy`].
    pub drain_target: Option<Duration>,
    /// As in [`Policy`].
    pub target_utilisation: Option<f64>,
    /// As in [`Policy`].
    pub capacity_prior: Option<f64>,
    /// As in [`Policy`].
    pub stabilisation_window: Option<Duration>,
}

/// Why a simulation could not run.
#[derive(Debug, Error)]
pub enum SimulateError {
    /// The trace is no trace.
    #[error("could not read the trace")]
    Trace(#[source] CsvError),
    /// The picture was not written.
    #[error("could not write {}", path.display())]
    WriteSvg {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Runs both controllers on the chosen traces.
///
/// # Errors
/// A file of arrivals cannot be read or is no trace, or the picture cannot be written.
pub fn run(options: &Options) -> Result<Report, SimulateError> {
    let traces = match &options.trace {
        TraceChoice::All => BuiltIn::ALL.map(Trace::built_in).into(),
        TraceChoice::BuiltIn(name) => vec![Trace::built_in(*name)],
        TraceChoice::Csv(path) => vec![csv::read(path).map_err(SimulateError::Trace)?],
    };
    let traces = traces.iter().map(|trace| compare(trace, options)).collect();
    let report = Report { objective: options.objective.0, fleet: options.fleet, traces };
    if let Some(path) = &options.svg {
        let written = std::fs::write(path, svg::draw(&report));
        written.map_err(|source| SimulateError::WriteSvg { path: path.clone(), source })?;
    }
    Ok(report)
}

/// Runs both on one trace; KEDA with each `lagCount`, of which the best counts.
fn compare(trace: &Trace, options: &Options) -> TraceReport {
    let policy = options.policy.over(Policy { min: trace.min, max: 20, ..Policy::default() });
    let run = |controller: &mut dyn Controller| {
        World::new(trace, options.fleet, &policy, options.objective.0).run(controller)
    };
    let ours = run(&mut Ours::new(&policy));
    let best = |nil_lag: NilLag| {
        let keda = LAG_COUNTS.map(|lag_count| (lag_count, run(&mut Keda::new(lag_count, nil_lag, &policy))));
        let best = keda.into_iter().reduce(|best, other| if other.1.is_better(&best.1) { other } else { best });
        best.unwrap_or_else(|| (LAG_COUNTS[0], ours.clone()))
    };
    let (lag_count, keda) = best(NilLag::Error);
    let later_keda = (trace.lag == LagReport::Nil).then(|| best(NilLag::Zero));
    TraceReport {
        name: trace.name.clone(),
        about: trace.about.clone(),
        seconds: trace.seconds(),
        ours,
        keda,
        lag_count,
        later_keda,
    }
}

// === impl Objective ===

impl Default for Objective {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

// === impl Overrides ===

impl Overrides {
    fn over(&self, policy: Policy) -> Policy {
        Policy {
            min: self.min.unwrap_or(policy.min),
            max: self.max.unwrap_or(policy.max),
            step_up: self.step_up.unwrap_or(policy.step_up),
            step_down: self.step_down.unwrap_or(policy.step_down),
            drain_target: self.drain_target.unwrap_or(policy.drain_target),
            target_utilisation: self.target_utilisation.unwrap_or(policy.target_utilisation),
            capacity_prior: self.capacity_prior.unwrap_or(policy.capacity_prior),
            stabilisation_window: self.stabilisation_window.unwrap_or(policy.stabilisation_window),
            ..policy
        }
    }
}
