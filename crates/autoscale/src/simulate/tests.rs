//! What the simulation must show.

use std::sync::LazyLock;

use super::*;

/// What the defaults do on every built-in trace: it takes a while, so all tests look at one run.
static RUN: LazyLock<Report> = LazyLock::new(|| run(&Options::default()).unwrap());

fn assert_better(trace: BuiltIn) {
    let found = RUN.traces.iter().find(|found| found.name == trace.name());
    let TraceReport { ours, keda, lag_count, .. } = found.unwrap();
    let shown =
        |outcome: &Outcome| format!("{} s over, {:.2} worker-hours", outcome.seconds_over, outcome.worker_hours());
    assert!(ours.is_better(keda), "{trace}: ours {}; KEDA ({lag_count}) {}", shown(ours), shown(keda));
}

#[test]
fn a_day_is_better_served_than_by_keda() {
    assert_better(BuiltIn::Day);
}

#[test]
fn a_spike_is_better_served_than_by_keda() {
    assert_better(BuiltIn::Spike);
}

#[test]
fn growth_is_better_served_than_by_keda() {
    assert_better(BuiltIn::Growth);
}

#[test]
fn an_outage_is_better_served_than_by_keda() {
    assert_better(BuiltIn::Outage);
}

#[test]
fn entries_of_dead_consumers_are_better_served_than_by_keda() {
    assert_better(BuiltIn::DeadConsumers);
}

#[test]
fn an_unknown_lag_is_better_served_than_by_keda() {
    assert_better(BuiltIn::NilLag);
}

#[test]
fn a_lag_too_high_is_better_served_than_by_keda() {
    assert_better(BuiltIn::TrimmedLag);
}

#[test]
fn a_simulation_can_be_repeated_to_the_digit() {
    let options = Options { trace: TraceChoice::BuiltIn(BuiltIn::Spike), ..Options::default() };
    let [first, second] = [(); 2].map(|()| run(&options).unwrap().to_string());
    assert_eq!(first, second);
}

#[test]
fn nothing_is_lost_on_the_way() {
    for trace in BuiltIn::ALL {
        let trace = Trace::built_in(trace);
        let (rate, seconds) = trace.waiting.unwrap_or_default();
        let all = trace.arrivals.iter().sum::<f64>() + rate * seconds as f64;
        let policy = Policy { min: trace.min, max: 20, ..Policy::default() };
        let mut world = World::new(&trace, FleetModel::default(), &policy, Duration::from_secs(30));
        let mut ours = Ours::new(&policy);
        world.run(&mut ours);
        assert!((world.total() - all).abs() < 1.0, "{}: {} of {all}", trace.name, world.total());
    }
}

#[test]
fn the_table_in_the_docs_is_the_one_that_comes_out() {
    let docs = include_str!("../../../../docs/autoscaling.md");
    let table = RUN.table();
    assert!(docs.contains(&table), "put this into docs/autoscaling.md:\n{table}");
}

#[test]
fn the_report_shows_a_table_a_plot_and_a_picture() {
    let folder = penstock_local::testing::TempFolder::new().unwrap();
    let (csv, svg) = (folder.path().join("mine.csv"), folder.path().join("mine.svg"));
    std::fs::write(&csv, "seconds,events_per_second\n0,500\n300,3000\n900,0\n").unwrap();
    let options = Options { trace: TraceChoice::Csv(csv), svg: Some(svg.clone()), ..Options::default() };
    let report = run(&options).unwrap().to_string();
    assert!(report.contains("mine: 3 points over 900 s"), "{report}");
    assert!(report.contains("│") && report.contains("| mine | Penstock |"), "{report}");
    let picture = std::fs::read_to_string(svg).unwrap();
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    let missing = Options { trace: TraceChoice::Csv(folder.path().join("no.csv")), ..Options::default() };
    assert!(matches!(run(&missing), Err(SimulateError::Trace(CsvError::Read { .. }))));
}
