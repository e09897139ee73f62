//! Whose turn it is on a connection, and how long the client may take when it is its own.
//!
//! An idle connection and a request that never ends are told apart: the first one is what a load balancer keeps for later, and
//! must be kept for longer than the balancer does; the second one is let go soon.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// To send the head of a request, from its first byte, or from when it connected.
    pub(crate) head: Duration,
    /// To begin the next request.
    pub(crate) idle: Duration,
}

/// Whose turn it is; clones are of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Turn(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The client has connected, or has begun a request.
    Asking { since: Instant, answered: u64 },
    /// The request of this number is being answered.
    Answering { number: u64 },
    /// The last answer is sent, and nothing of the next request has come.
    Idle { since: Instant, answered: u64 },
}

/// The body of an answer, whose end is the end of our turn.
pub(crate) struct Answer {
    body: Body,
    _end: Option<End>,
}

/// Ends our turn when it is dropped.
pub(crate) struct End {
    turn: Turn,
    number: u64,
}

// === impl Turn ===

impl Turn {
    /// Begins with the client, who has connected.
    pub(crate) fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State::Asking { since: now, answered: 0 })))
    }

    /// The client has sent something.
    pub(crate) fn heard(&self, now: Instant) {
        let mut state = self.state();
        *state = state.heard(now);
    }

    /// A request is whole; our turn ends with what is returned.
    pub(crate) fn answer(&self) -> End {
        let mut state = self.state();
        let number = state.number();
        *state = State::Answering { number };
        End { turn: self.clone(), number }
    }

    /// Returns until when something must have come; `None` while it is our turn.
    pub(crate) fn deadline(&self, patience: &Patience) -> Option<Instant> {
        self.state().deadline(patience)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn heard(self, now: Instant) -> Self {
        match self {
            Self::Idle { answered, .. } => Self::Asking { since: now, answered },
            // What comes meanwhile is a body, or the next request ahead of its time.
            Self::Asking { .. } | Self::Answering { .. } => self,
        }
    }

    /// The number of the request that is whole now.
    fn number(self) -> u64 {
        match self {
            Self::Asking { answered, .. } | Self::Idle { answered, .. } => answered + 1,
            Self::Answering { number } => number + 1,
        }
    }

    /// What holds once the answer of a number is sent, which may be told after the next one was begun.
    fn answered(self, number: u64, now: Instant) -> Self {
        if self == (Self::Answering { number }) { Self::Idle { since: now, answered: number } } else { self }
    }

    fn deadline(self, patience: &Patience) -> Option<Instant> {
        match self {
            Self::Asking { since, .. } => Some(since + patience.head),
            Self::Answering { .. } => None,
            Self::Idle { since, .. } => Some(since + patience.idle),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// Takes the body of an answer; without an end, it is our turn from now on.
    pub(crate) fn new(body: Body, end: Option<End>) -> Self {
        Self { body, _end: end }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.turn.state();
        *state = state.answered(self.number, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(30), idle: Duration::from_secs(90) };

    /// What happens on a connection.
    enum Step {
        Heard,
        Whole,
        Sent,
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_30_s_for_a_request_90_s_between_two_and_is_not_hurried_while_it_waits_for_us() {
        use Step::{Heard, Sent, Whole};
        // What happens how many seconds after the connection, and until when the client then has time.
        let course: [(u64, Step, Option<u64>); 12] = [
            (5, Heard, Some(30)),
            (29, Heard, Some(30)),
            (29, Whole, None),
            (40, Heard, None),
            (1000, Sent, Some(1090)),
            (1080, Heard, Some(1110)),
            (1100, Heard, Some(1110)),
            (1101, Whole, None),
            (1102, Sent, Some(1192)),
            // A request that came whole in what was read before.
            (1103, Whole, None),
            (1104, Whole, None),
            (1105, Sent, Some(1195)),
        ];
        let start = Instant::now();
        let turn = Turn::new(start);
        let left = |turn: &Turn| turn.deadline(&PATIENCE).map(|deadline| (deadline - start).as_secs());
        assert_eq!(left(&turn), Some(30));
        let mut ends = Vec::new();
        for (at, step, until) in course {
            tokio::time::sleep_until(start + Duration::from_secs(at)).await;
            match step {
                Heard => turn.heard(Instant::now()),
                Whole => ends.push(turn.answer()),
                // The newest answer is sent.
                Sent => drop(ends.pop()),
            }
            assert_eq!(left(&turn), until, "after {at} s");
        }
        // The end of an earlier answer, told late, ends nothing.
        let last = turn.answer();
        ends.clear();
        assert_eq!(left(&turn), None);
        drop(last);
        assert_eq!(left(&turn), Some(1195));
    }
}
