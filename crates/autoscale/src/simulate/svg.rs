//! A report as a picture.

use super::outcome::TraceReport;
use super::plot::{columns, greatest};
use super::report::Report;

const WIDTH: usize = 900;
const PANEL: usize = 90;
const GAP: usize = 34;
const LEFT: usize = 70;

/// The colours of arrivals, ours and KEDA's: told apart by the colour-blind too.
const COLOURS: [&str; 3] = ["#555555", "#0072b2", "#d55e00"];

/// Draws three panels for each trace: arrivals, workers, and how long the oldest event waited.
pub(super) fn draw(report: &Report) -> String {
    let of_trace = 3 * (PANEL + GAP) + 40;
    let height = report.traces.len() * of_trace + 20;
    let total = WIDTH + LEFT + 20;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {total} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{total}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, trace) in report.traces.iter().enumerate() {
        draw_trace(&mut svg, trace, at * of_trace + 20, report.objective.as_secs_f64());
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_trace(svg: &mut String, trace: &TraceReport, top: usize, objective: f64) {
    let [arrivals, ours, keda] = COLOURS;
    let title = escape(&format!("{}: {}", trace.name, trace.about));
    svg.push_str(&format!("<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>\n", top + 12));
    svg.push_str(&format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\"><tspan fill=\"{ours}\">Penstock</tspan> <tspan fill=\"{keda}\">KEDA, \
         lagCount {}</tspan></text>\n",
        LEFT + WIDTH,
        top + 12,
        trace.lag_count
    ));
    let workers = |outcome| columns(outcome, WIDTH, |sample| f64::from(sample.workers));
    let ages = |outcome| columns(outcome, WIDTH, |sample| f64::from(sample.age));
    let arriving = columns(&trace.ours, WIDTH, |sample| f64::from(sample.arriving));
    let panel = |number: usize| top + 30 + number * (PANEL + GAP);
    draw_panel(svg, panel(0), "arriving /s", &[(arrivals, arriving)], None);
    draw_panel(svg, panel(1), "workers", &[(keda, workers(&trace.keda)), (ours, workers(&trace.ours))], None);
    let waits = [(keda, ages(&trace.keda)), (ours, ages(&trace.ours))];
    draw_panel(svg, panel(2), "waiting s", &waits, Some(objective));
    let hours = trace.seconds as f64 / 3_600.0;
    let below = panel(2) + PANEL + 14;
    svg.push_str(&format!(
        "<text x=\"{LEFT}\" y=\"{below}\">0</text><text x=\"{}\" y=\"{below}\" text-anchor=\"end\">{hours:.1} h</text>\n",
        LEFT + WIDTH
    ));
}

fn draw_panel(svg: &mut String, top: usize, name: &str, lines: &[(&str, Vec<f64>)], mark: Option<f64>) {
    let most = lines.iter().map(|(_, line)| greatest(line)).fold(1e-9, f64::max);
    let y = |value: f64| top as f64 + PANEL as f64 * (1.0 - (value / most).min(1.0));
    svg.push_str(&format!(
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{PANEL}\" fill=\"none\" stroke=\"#cccccc\"/>\n\
         <text x=\"{0}\" y=\"{1}\" text-anchor=\"end\">{most:.0}</text><text x=\"{0}\" y=\"{2}\" \
         text-anchor=\"end\">{name}</text>\n",
        LEFT - 6,
        top + 10,
        top + PANEL / 2 + 4,
    ));
    if let Some(mark) = mark.filter(|mark| *mark < most) {
        let at = y(mark);
        svg.push_str(&format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#999999\" stroke-dasharray=\"4\"/>\n",
            LEFT + WIDTH
        ));
    }
    for (colour, line) in lines {
        let step = WIDTH as f64 / line.len().max(1) as f64;
        let points: Vec<_> = line
            .iter()
            .enumerate()
            .map(|(column, value)| format!("{:.1},{:.1}", LEFT as f64 + column as f64 * step, y(*value)))
            .collect();
        svg.push_str(&format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\" points=\"{}\"/>\n",
            points.join(" ")
        ));
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
