//! What a simulation found.

use std::fmt;
use std::time::Duration;

use super::outcome::TraceReport;
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
            let differs = trace.later_keda.is_some();
            let before = if differs { "KEDA before 2.20.2" } else { "KEDA" };
            let mut rows = vec![
                (trace.name.as_str(), "Penstock".to_owned(), &trace.ours),
                ("", format!("{before}, lagCount {}", trace.lag_count), &trace.keda),
            ];
            if let Some((lag_count, later)) = &trace.later_keda {
                rows.push(("", format!("KEDA from 2.20.2, lagCount {lag_count}"), later));
            }
            for (name, who, outcome) in rows {
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
        1e12.. => format!("{:.1} T", count / 1e12),
        1e9.. => format!("{:.1} G", count / 1e9),
        1e6.. => format!("{:.1} M", count / 1e6),
        1e3.. => format!("{:.1} k", count / 1e3),
        _ => format!("{count:.0}"),
    }
}
