//! A trace as lines of block characters.

use super::outcome::{Outcome, Sample, TraceReport};

/// How wide a line is, in characters.
const WIDTH: usize = 72;

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws arrivals, workers and waiting time of both controllers, each pair to one scale.
pub(super) fn draw(trace: &TraceReport) -> String {
    let arriving = columns(&trace.ours, WIDTH, |sample| f64::from(sample.arriving));
    let workers = |outcome| columns(outcome, WIDTH, |sample| f64::from(sample.workers));
    let ages = |outcome| columns(outcome, WIDTH, |sample| f64::from(sample.age));
    let rows = [
        ("arriving /s", vec![("", arriving)]),
        ("workers", vec![("Penstock", workers(&trace.ours)), ("KEDA", workers(&trace.keda))]),
        ("waiting s", vec![("Penstock", ages(&trace.ours)), ("KEDA", ages(&trace.keda))]),
    ];
    let mut text = String::new();
    for (what, lines) in rows {
        let top = lines.iter().map(|(_, line)| greatest(line)).fold(0.0, f64::max);
        for (who, line) in lines {
            let blocks: String = line.iter().map(|value| block(*value, top)).collect();
            text.push_str(&format!("  {what:<11} {who:<8} │{blocks}│ max {:.0}\n", greatest(&line)));
        }
    }
    text
}

/// Reduces the seconds to so many columns, of each the greatest.
pub(super) fn columns(outcome: &Outcome, width: usize, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let samples = &outcome.samples;
    let width = width.min(samples.len());
    (0..width)
        .map(|column| {
            let range = column * samples.len() / width..(column + 1) * samples.len() / width;
            samples.get(range).unwrap_or_default().iter().map(&value).fold(0.0, f64::max)
        })
        .collect()
}

pub(super) fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn block(value: f64, top: f64) -> char {
    let level = if top > 0.0 { (value / top * 8.0).ceil() } else { 0.0 };
    BLOCKS.get(level.clamp(0.0, 8.0) as usize).copied().unwrap_or(' ')
}
