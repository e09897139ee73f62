//! What the simulation must show.

use std::sync::LazyLock;

use super::*;

/// What the defaults do on every built-in trace: it takes a while, so all tests look at one run.
static RUN: LazyLock<Report> = LazyLock::new(|| run(&Options::default()).unwrap());

fn assert_better(trace: BuiltIn) {
    let found = RUN.traces.iter().find(|found| found.name == trace.name());
    let TraceReport { ours, keda, lag_count, later_keda, .. } = found.unwrap();
    let shown =
        |outcome: &Outcome| format!("{} s over, {:.2} worker-hours", outcome.seconds_over, outcome.worker_hours());
    assert!(ours.is_better(keda), "{trace}: ours {}; KEDA ({lag_count}) {}", shown(ours), shown(keda));
    if let Some((lag_count, later)) = later_keda {
        assert!(ours.is_better(later), "{trace}: ours {}; later KEDA ({lag_count}) {}", shown(ours), shown(later));
    }
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
fn from_2_20_2_on_keda_does_not_follow_a_lag_that_is_not_known() {
    let found = RUN.traces.iter().find(|found| found.name == "nil-lag").unwrap();
    let (_, later) = found.later_keda.as_ref().unwrap();
    assert!(later.samples.iter().all(|sample| sample.workers == 1), "the minimum, whatever waits");
    assert!(later.seconds_over > 3_600 && found.keda.seconds_over < later.seconds_over);
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
fn workers_that_settle_more_than_the_prior_says_are_not_ordered_in_vain() {
    let fleet = FleetModel { capacity: 8_051.0, database_limit: 100_000.0, ..FleetModel::default() };
    let most = |prior: f64| {
        let options = Options {
            trace: TraceChoice::BuiltIn(BuiltIn::Spike),
            policy: Overrides { capacity_prior: Some(prior), ..Overrides::default() },
            fleet,
            ..Options::default()
        };
        let report = run(&options).unwrap();
        let ours = &report.traces[0].ours;
        (ours.samples.iter().map(|sample| sample.workers).max().unwrap(), ours.seconds_over)
    };
    let ((known, _), (assumed, over)) = (most(8_051.0), most(1_000.0));
    // By the prior alone it would be eight times as many.
    assert!(assumed <= known + 1, "{assumed} workers by a prior of 1,000, {known} by the truth");
    assert_eq!(over, 0);
}

#[test]
fn a_wrong_prior_costs_no_event_its_time_and_one_too_high_few_workers() {
    for trace in [BuiltIn::Spike, BuiltIn::Growth, BuiltIn::NilLag] {
        let right = RUN.traces.iter().find(|found| found.name == trace.name()).unwrap().ours.worker_hours();
        for prior in [250.0, 3_000.0] {
            let policy = Overrides { capacity_prior: Some(prior), ..Overrides::default() };
            let report = run(&Options { trace: TraceChoice::BuiltIn(trace), policy, ..Options::default() }).unwrap();
            let ours = &report.traces[0].ours;
            let hours = ours.worker_hours();
            println!("{trace} with {prior}: {hours:.1} h instead of {right:.1} h");
            assert_eq!(ours.seconds_over, 0, "{trace} with {prior}");
            // Workers that are never busy cannot show that they are faster.
            let bound = if prior < 800.0 { 4.0 } else { 1.3 };
            assert!(hours < right * bound, "{trace} with {prior}: {hours} h instead of {right} h");
        }
    }
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
