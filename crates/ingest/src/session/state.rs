//! Where a connection is between its first frame and its end, and what each event changes; no I/O happens here.
//!
//! ```text
//!            Shutdown                     ReaderDone
//! Reading ─────────────▶ Draining ─────────────────────▶ Closed ── Written ──▶ ask the reader why
//!    │ └──────────────────── ReaderDone ───────────────────▲ │
//!    │ End, Broken              │ Broken                     │ End
//!    └──────────────────────────┴──────────▶ Ending ◀────────┘
//!                                              └── Written ──▶ finish
//! ```
//!
//! A refused batch ends the connection in any state, and so does the deadline of a shutdown.

use tokio::time::Instant;

use crate::session::outcome::Outcome;

/// The state of one connection.
#[derive(Debug, PartialEq)]
pub(super) enum State {
    /// Frames are taken in and written.
    Reading,
    /// A shutdown stopped the reader; what it handed over before is taken in and written until the deadline.
    Draining {
        /// When the connection ends, whatever is unwritten by then.
        deadline: Instant,
    },
    /// The reader has ended and everything it handed over is taken in; it is written, then the reader says why it ended.
    Closed {
        /// The deadline, if a shutdown was requested.
        deadline: Option<Instant>,
    },
    /// Nothing more is taken in; what was taken in is written, then the connection ends.
    Ending {
        /// How it ends.
        outcome: Outcome,
        /// The deadline, if a shutdown was requested before.
        deadline: Option<Instant>,
    },
}

/// What happens to a connection.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// A shutdown was requested.
    Shutdown {
        /// When the connection ends, whatever is unwritten by then.
        deadline: Instant,
    },
    /// The connection is to end although it could go on: for a pause, a reconnect, or the host's silence.
    End(Outcome),
    /// A frame, or its decoding, makes it impossible to go on.
    Broken(Outcome),
    /// The reader has ended, and everything it handed over is taken in.
    ReaderDone,
    /// Nothing waits to be sent, and every batch is answered.
    Written,
    /// A batch was not written.
    Refused(Outcome),
    /// The deadline of a shutdown passed.
    Deadline,
}

/// What an event leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Go on in this state.
    Continue(State),
    /// Stop the reader, then go on in this state.
    StopReader(State),
    /// Ask the reader why it ended, and finish with that.
    AskReader,
    /// Finish.
    Finish(Outcome),
}

// === impl State ===

impl State {
    /// Returns what an event leads to. One that comes too late changes nothing.
    pub(super) fn on(self, event: Event) -> Step {
        match (self, event) {
            (_, Event::Refused(outcome)) => Step::Finish(outcome),
            (Self::Draining { .. } | Self::Closed { deadline: Some(_) }, Event::Deadline)
            | (Self::Ending { deadline: Some(_), .. }, Event::Deadline) => Step::Finish(Outcome::Shutdown),

            (Self::Reading, Event::Shutdown { deadline }) => Step::StopReader(Self::Draining { deadline }),
            (Self::Closed { deadline: None }, Event::Shutdown { deadline }) => {
                Step::StopReader(Self::Closed { deadline: Some(deadline) })
            }

            (Self::Reading | Self::Closed { deadline: None }, Event::End(outcome))
            | (Self::Reading, Event::Broken(outcome)) => Step::StopReader(Self::Ending { outcome, deadline: None }),
            (Self::Draining { deadline }, Event::Broken(outcome)) => {
                Step::StopReader(Self::Ending { outcome, deadline: Some(deadline) })
            }

            (Self::Reading, Event::ReaderDone) => Step::Continue(Self::Closed { deadline: None }),
            (Self::Draining { deadline }, Event::ReaderDone) => {
                Step::Continue(Self::Closed { deadline: Some(deadline) })
            }

            (Self::Closed { .. }, Event::Written) => Step::AskReader,
            (Self::Ending { outcome, .. }, Event::Written) => Step::Finish(outcome),

            (state, _) => Step::Continue(state),
        }
    }

    /// Returns whether frames are still taken in.
    pub(super) fn takes_in(&self) -> bool {
        matches!(self, Self::Reading | Self::Draining { .. })
    }

    /// Returns whether the connection may still be asked to end.
    pub(super) fn may_be_asked(&self) -> bool {
        matches!(self, Self::Reading | Self::Closed { deadline: None })
    }

    /// Returns when the connection ends, whatever is unwritten by then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Reading => None,
            Self::Draining { deadline } => Some(*deadline),
            Self::Closed { deadline } | Self::Ending { deadline, .. } => *deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each event leads to, in the order of the columns: `Shutdown`, `End`, `Broken`, `ReaderDone`, `Written`, `Refused`,
    /// `Deadline`.
    fn row(state: impl Fn() -> State, deadline: Instant) -> [Step; 7] {
        let events = [
            Event::Shutdown { deadline },
            Event::End(Outcome::Paused),
            Event::Broken(Outcome::Reconnect),
            Event::ReaderDone,
            Event::Written,
            Event::Refused(Outcome::LeaseLost),
            Event::Deadline,
        ];
        events.map(|event| state().on(event))
    }

    #[test]
    fn every_state_answers_every_event() {
        use Step::{AskReader, Continue, Finish, StopReader};
        let at = Instant::now();
        let draining = || State::Draining { deadline: at };
        let closed = |deadline| State::Closed { deadline };
        let ending = |outcome, deadline| State::Ending { outcome, deadline };
        let renewed = |deadline| ending(Outcome::Renewed, deadline);
        let refused = || Finish(Outcome::LeaseLost);
        let table = [
            (
                row(|| State::Reading, at),
                [
                    StopReader(draining()),
                    StopReader(ending(Outcome::Paused, None)),
                    StopReader(ending(Outcome::Reconnect, None)),
                    Continue(closed(None)),
                    Continue(State::Reading),
                    refused(),
                    Continue(State::Reading),
                ],
            ),
            (
                row(draining, at),
                [
                    Continue(draining()),
                    Continue(draining()),
                    StopReader(ending(Outcome::Reconnect, Some(at))),
                    Continue(closed(Some(at))),
                    Continue(draining()),
                    refused(),
                    Finish(Outcome::Shutdown),
                ],
            ),
            (
                row(|| closed(None), at),
                [
                    StopReader(closed(Some(at))),
                    StopReader(ending(Outcome::Paused, None)),
                    Continue(closed(None)),
                    Continue(closed(None)),
                    AskReader,
                    refused(),
                    Continue(closed(None)),
                ],
            ),
            (
                row(|| closed(Some(at)), at),
                [
                    Continue(closed(Some(at))),
                    Continue(closed(Some(at))),
                    Continue(closed(Some(at))),
                    Continue(closed(Some(at))),
                    AskReader,
                    refused(),
                    Finish(Outcome::Shutdown),
                ],
            ),
            (
                row(|| renewed(None), at),
                [
                    Continue(renewed(None)),
                    Continue(renewed(None)),
                    Continue(renewed(None)),
                    Continue(renewed(None)),
                    Finish(Outcome::Renewed),
                    refused(),
                    Continue(renewed(None)),
                ],
            ),
            (
                row(|| renewed(Some(at)), at),
                [
                    Continue(renewed(Some(at))),
                    Continue(renewed(Some(at))),
                    Continue(renewed(Some(at))),
                    Continue(renewed(Some(at))),
                    Finish(Outcome::Renewed),
                    refused(),
                    Finish(Outcome::Shutdown),
                ],
            ),
        ];
        for (answers, expected) in table {
            assert_eq!(answers, expected);
        }
    }

    #[test]
    fn frames_are_taken_in_until_the_reader_is_done_or_something_broke() {
        let at = Instant::now();
        let states = [
            (State::Reading, (true, true, None)),
            (State::Draining { deadline: at }, (true, false, Some(at))),
            (State::Closed { deadline: None }, (false, true, None)),
            (State::Closed { deadline: Some(at) }, (false, false, Some(at))),
            (State::Ending { outcome: Outcome::Paused, deadline: None }, (false, false, None)),
        ];
        for (state, expected) in states {
            assert_eq!((state.takes_in(), state.may_be_asked(), state.deadline()), expected, "{state:?}");
        }
    }
}
