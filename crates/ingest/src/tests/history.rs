//! Hosts that number and clock as they like: a generator of what happens, and a model of such a host.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

/// Numbers that follow from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    /// Draws one of so many numbers from 0 on.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % count
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// So many events, one number after the other.
    Events(u64),
    /// So many numbers are left out.
    Gap(u64),
    /// So many events so far ahead; then the host goes on where it was.
    Stray { ahead: u64, events: u64 },
    /// An event so far behind the newest one.
    Late(u64),
    /// The newest event comes once more on the open connection.
    Repeat,
    /// The host loses what it had and counts from this number on, on the open connection or behind a cut.
    Reset { from: u64, cut: bool },
    /// The host's clock is another one.
    Clock(Clock),
    /// The connection ends.
    Cut,
    /// The host is not there for a while: the other one is read.
    Leave,
    /// Ingest ends and begins again.
    Restart,
}

/// What a host's events are dated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    Right,
    DayAhead,
    DayBehind,
    Unreadable,
}

/// Makes what happens.
pub(crate) fn steps(dice: &mut Dice) -> Vec<Step> {
    let mut steps = vec![Step::Events(1 + dice.below(20))];
    for _ in 0..6 + dice.below(24) {
        steps.push(match dice.below(20) {
            0..=7 => Step::Events(1 + dice.below(30)),
            8 => Step::Gap(1 + dice.below(90)),
            9 => Step::Gap(1_000 + dice.below(1_000_000)),
            10 => Step::Stray { ahead: 1_000 + dice.below(1_000_000), events: 1 + dice.below(6) },
            11 => Step::Stray { ahead: 2 + dice.below(150), events: 1 },
            12 => Step::Late(1 + dice.below(60)),
            13 => Step::Repeat,
            14 => Step::Reset { from: 1 + dice.below(500), cut: dice.below(2) == 0 },
            15 => Step::Clock(match dice.below(4) {
                0 => Clock::Right,
                1 => Clock::DayAhead,
                2 => Clock::DayBehind,
                _ => Clock::Unreadable,
            }),
            16 | 17 => Step::Cut,
            18 => Step::Leave,
            _ => Step::Restart,
        });
    }
    // Whatever it was, the host counts on for a while, so that one line is there at the end.
    steps.push(Step::Events(8));
    steps
}

/// An event: its number, and what tells it from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) seq: u64,
    pub(crate) id: u64,
    pub(crate) time: String,
}

/// What a host does on a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Sends it on the open connection, and has it from now on for those that come.
    Send(Sent),
    /// Ends the open connection.
    Cut,
}

/// A host that keeps what it sent, and sends what is above a cursor, in the order in which it had sent it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) kept: Vec<Sent>,
    /// Whether it answers a cursor ahead of it with an error, or says nothing.
    pub(crate) says_future: bool,
    next: u64,
    newest: Option<Sent>,
    ids: u64,
    clock: Clock,
}

impl Host {
    /// Begins at a number; its events are told from those of others by ids from there on.
    pub(crate) fn new(next: u64, ids: u64, says_future: bool) -> Self {
        Self { kept: Vec::new(), says_future, next, newest: None, ids, clock: Clock::Right }
    }

    /// Returns what a cursor gets; none where it is ahead and that is an error.
    pub(crate) fn backlog(&self, cursor: Option<u64>) -> Option<Vec<Sent>> {
        let Some(cursor) = cursor else { return Some(Vec::new()) };
        let greatest = self.kept.iter().map(|sent| sent.seq).max().unwrap_or_default();
        if self.says_future && cursor > greatest {
            return None;
        }
        Some(self.kept.iter().filter(|sent| sent.seq > cursor).cloned().collect())
    }

    pub(crate) fn act(&mut self, step: Step) -> Vec<Act> {
        let mut acts = Vec::new();
        match step {
            Step::Events(count) => {
                for _ in 0..count {
                    let sent = self.event(self.next);
                    self.next += 1;
                    acts.push(Act::Send(sent));
                }
            }
            Step::Gap(numbers) => self.next += numbers,
            Step::Stray { ahead, events } => {
                acts.extend((0..events).map(|event| Act::Send(self.event(self.next + ahead + event))));
            }
            // No number twice: whoever restarted its sequence may, and that is another step.
            Step::Late(behind) => {
                let seq = self.next.saturating_sub(1 + behind).max(1);
                if self.kept.iter().all(|sent| sent.seq != seq) {
                    acts.push(Act::Send(self.event(seq)));
                }
            }
            Step::Repeat => acts.extend(self.newest.clone().map(Act::Send)),
            Step::Reset { from, cut } => {
                self.kept.clear();
                self.newest = None;
                self.next = from;
                acts.extend(cut.then_some(Act::Cut));
            }
            Step::Clock(clock) => self.clock = clock,
            Step::Cut => acts.push(Act::Cut),
            Step::Leave | Step::Restart => {}
        }
        acts
    }

    fn event(&mut self, seq: u64) -> Sent {
        self.ids += 1;
        let now = Timestamp::now();
        let time = match self.clock {
            Clock::Right => now.to_string(),
            Clock::DayAhead => (now + SignedDuration::from_hours(24)).to_string(),
            Clock::DayBehind => (now - SignedDuration::from_hours(24)).to_string(),
            Clock::Unreadable => "a quarter past".to_owned(),
        };
        let sent = Sent { seq, id: self.ids, time };
        self.kept.push(sent.clone());
        self.newest = Some(sent.clone());
        sent
    }
}

impl Sent {
    /// Makes its frame, an identity of an account of its own.
    pub(crate) fn frame(&self) -> Bytes {
        let mut frame = Vec::new();
        head(&mut frame, 5, 2);
        text(&mut frame, "t");
        text(&mut frame, "#identity");
        text(&mut frame, "op");
        head(&mut frame, 0, 1);
        head(&mut frame, 5, 3);
        text(&mut frame, "did");
        text(&mut frame, &self.did());
        text(&mut frame, "seq");
        head(&mut frame, 0, self.seq);
        text(&mut frame, "time");
        text(&mut frame, &self.time);
        frame.into()
    }

    /// Returns the account.
    pub(crate) fn did(&self) -> String {
        format!("did:web:e{}.test", self.id)
    }
}

/// Makes the error frame of a cursor that is ahead.
pub(crate) fn future_cursor() -> Bytes {
    let mut frame = Vec::new();
    head(&mut frame, 5, 1);
    text(&mut frame, "op");
    head(&mut frame, 1, 0);
    head(&mut frame, 5, 1);
    text(&mut frame, "error");
    text(&mut frame, "FutureCursor");
    frame.into()
}

fn text(out: &mut Vec<u8>, text: &str) {
    head(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    match value {
        0..24 => out.push(major | u8::try_from(value).unwrap()),
        24..256 => out.extend([major | 24, u8::try_from(value).unwrap()]),
        256..65_536 => {
            out.push(major | 25);
            out.extend(u16::try_from(value).unwrap().to_be_bytes());
        }
        65_536..4_294_967_296 => {
            out.push(major | 26);
            out.extend(u32::try_from(value).unwrap().to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(value.to_be_bytes());
        }
    }
}
