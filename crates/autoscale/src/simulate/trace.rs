//! Arrivals over time, and what goes wrong meanwhile.

use std::fmt;
use std::str::FromStr;

/// Arrivals, second by second.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) about: String,
    /// Events that arrive at the relay in each second.
    pub(crate) arrivals: Vec<f64>,
    /// Events that wait at the relay at the start, spread evenly over so many seconds before it.
    pub(crate) waiting: Option<(f64, u64)>,
    /// What Redis says of the lag.
    pub(crate) lag: LagReport,
    /// When the node fails that all workers are on.
    pub(crate) node_fails: Vec<u64>,
    /// The fewest workers, of both controllers.
    pub(crate) min: u16,
}

/// What Redis says of the lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LagReport {
    /// The truth.
    Right,
    /// Nothing.
    Nil,
    /// So many too many: entries were trimmed before they were read.
    TooHigh(u64),
}

/// The traces that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuiltIn {
    /// A day: quiet in the night, three times as much in the evening.
    Day,
    /// Five times as much, for ten minutes.
    Spike,
    /// Twelve times as much, over six hours.
    Growth,
    /// After six hours without ingest.
    Outage,
    /// Bursts, and a node that fails at the end of some of them.
    DeadConsumers,
    /// A day on which Redis says nothing of the lag.
    NilLag,
    /// A day on which Redis says too much of the lag.
    TrimmedLag,
}

/// A name that no built-in trace has.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "unknown trace {0:?}; the built-in traces are day, spike, growth, outage, dead-consumers, nil-lag and trimmed-lag"
)]
pub struct UnknownTrace(String);

// === impl BuiltIn ===

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Day, Self::Spike, Self::Growth, Self::Outage, Self::DeadConsumers, Self::NilLag, Self::TrimmedLag];

    /// Returns its name, as [`str::parse`] takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Spike => "spike",
            Self::Growth => "growth",
            Self::Outage => "outage",
            Self::DeadConsumers => "dead-consumers",
            Self::NilLag => "nil-lag",
            Self::TrimmedLag => "trimmed-lag",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Day => "24 h, 1,000 events/s at night, 3,000/s in the evening",
            Self::Spike => "2,000 events/s, 10,000/s from minute 30 to 40",
            Self::Growth => "from 500 to 6,000 events/s over 6 h",
            Self::Outage => "9.7 M events wait after 6 h without ingest, 450 more each second",
            Self::DeadConsumers => {
                "2,000 events/s for 3 min every half hour, else none; the node fails at the end of some"
            }
            Self::NilLag => "as day, but Redis reports no lag",
            Self::TrimmedLag => "as day, but the lag is 300,000 too high: that many entries were trimmed unread",
        }
    }
}

impl fmt::Display for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BuiltIn {
    type Err = UnknownTrace;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|trace| trace.name() == text).ok_or_else(|| UnknownTrace(text.to_owned()))
    }
}

// === impl Trace ===

impl Trace {
    /// Makes a built-in trace: the same each time, noise included.
    pub(crate) fn built_in(which: BuiltIn) -> Self {
        let hour = 3_600;
        let (seconds, rate): (u64, fn(u64) -> f64) = match which {
            BuiltIn::Day | BuiltIn::NilLag | BuiltIn::TrimmedLag => {
                (24 * hour, |t| 1_000.0 + 2_000.0 * hump(t as f64 / 86_400.0))
            }
            BuiltIn::Spike => (2 * hour, |t| if (1_800..2_400).contains(&t) { 10_000.0 } else { 2_000.0 }),
            BuiltIn::Growth => (6 * hour, |t| 500.0 + 5_500.0 * t as f64 / 21_600.0),
            BuiltIn::Outage => (2 * hour, |_| 450.0),
            BuiltIn::DeadConsumers => (4 * hour, |t| if t % 1_800 < 180 { 2_000.0 } else { 0.0 }),
        };
        let mut noise = Noise(1 + which as u64);
        let arrivals = (0..seconds).map(|t| rate(t) * (1.0 + 0.08 * noise.next())).collect();
        Self {
            name: which.name().to_owned(),
            about: which.about().to_owned(),
            arrivals,
            waiting: (which == BuiltIn::Outage).then_some((450.0, 6 * hour)),
            lag: match which {
                BuiltIn::NilLag => LagReport::Nil,
                BuiltIn::TrimmedLag => LagReport::TooHigh(300_000),
                _ => LagReport::Right,
            },
            node_fails: match which {
                BuiltIn::DeadConsumers => vec![1_800 + 179, 3 * 1_800 + 179, 5 * 1_800 + 179],
                _ => Vec::new(),
            },
            min: if which == BuiltIn::DeadConsumers { 0 } else { 1 },
        }
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.arrivals.len() as u64
    }
}

/// From 0 to 1 and back, smoothly; sums alone, which every machine does alike.
fn hump(x: f64) -> f64 {
    let half = 4.0 * x * (1.0 - x);
    half * half
}

/// Numbers between -1 and 1 that look random and are the same each time (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}
