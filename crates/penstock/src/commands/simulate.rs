//! Runs the autoscaler on a trace of arrivals, beside KEDA's rule.

use std::io::{ErrorKind, Write, stdout};

use penstock_autoscale::simulate::{self, Objective, Options, Overrides, TraceChoice};

use crate::cli::Simulate;
use crate::error::Error;

pub(super) fn run(args: &Simulate) -> Result<(), Error> {
    let report = simulate::run(&args.into())?;
    match writeln!(stdout(), "{report}") {
        // Whoever read the other end, such as `head`, has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Error::Print),
    }
}

// === impl Simulate ===

impl From<&Simulate> for Options {
    fn from(args: &Simulate) -> Self {
        let built_in = args.trace.map_or(TraceChoice::All, TraceChoice::BuiltIn);
        Self {
            trace: args.csv.clone().map_or(built_in, TraceChoice::Csv),
            policy: Overrides {
                min: args.min_replicas,
                max: args.max_replicas,
                step_up: args.max_step_up,
                step_down: args.max_step_down,
                drain_target: args.drain_target,
                target_utilisation: args.target_utilization.map(|percent| f64::from(percent) / 100.0),
                capacity_prior: args.capacity_per_worker.map(f64::from),
                stabilisation_window: args.stabilization_window,
            },
            objective: args.objective.map_or_else(Objective::default, Objective),
            svg: args.svg.clone(),
            ..Self::default()
        }
    }
}
