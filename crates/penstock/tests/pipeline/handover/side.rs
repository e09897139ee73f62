//! One side of the stream, which is ours or theirs at any time, and how it changes hands.

use tokio::time::sleep;

use super::plan::{Manner, Turn};
use super::player::Player;
use super::processor::Kind;
use crate::service::Service;

/// Whoever does the work of one side.
pub(crate) enum Hand {
    Ours(Service),
    Theirs(Player),
}

/// Starts the one or the other.
pub(crate) trait Bench {
    fn ours(&mut self) -> Service;
    fn theirs(&mut self, kind: Kind) -> Player;
}

/// One side.
pub(crate) struct Side<B> {
    bench: B,
    hand: Option<Hand>,
    /// What was not as it should be with any process of ours.
    pub(crate) wrong: Vec<String>,
}

// === impl Side ===

impl<B: Bench> Side<B> {
    /// Begins with theirs, as every migration does.
    pub(crate) fn new(mut bench: B, kind: Kind) -> Self {
        let hand = Some(Hand::Theirs(bench.theirs(kind)));
        Self { bench, hand, wrong: Vec::new() }
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.hand, Some(Hand::Ours(_)))
    }

    /// Lets the other side take over, or only look in.
    pub(crate) async fn turn(&mut self, Turn { theirs, manner }: Turn) {
        match manner {
            Manner::Terminate | Manner::Kill => {
                let ours = !self.is_ours();
                self.end(manner == Manner::Kill).await;
                self.hand = Some(self.start(ours, theirs));
            }
            Manner::Both(pause, kill) => {
                let other = self.start(!self.is_ours(), theirs);
                sleep(pause).await;
                self.end(kill).await;
                self.hand = Some(other);
            }
            Manner::Visit(pause) => {
                let other = self.start(!self.is_ours(), theirs);
                sleep(pause).await;
                self.finish(other, true).await;
            }
        }
    }

    /// Gives the side to ours, in order.
    pub(crate) async fn give_to_ours(&mut self) {
        if !self.is_ours() {
            self.end(false).await;
            self.hand = Some(Hand::Ours(self.bench.ours()));
        }
    }

    /// Ends whoever has it.
    pub(crate) async fn end(&mut self, kill: bool) {
        if let Some(hand) = self.hand.take() {
            self.finish(hand, kill).await;
        }
    }

    fn start(&mut self, ours: bool, theirs: Kind) -> Hand {
        if ours { Hand::Ours(self.bench.ours()) } else { Hand::Theirs(self.bench.theirs(theirs)) }
    }

    async fn finish(&mut self, hand: Hand, kill: bool) {
        match hand {
            Hand::Ours(mut service) => {
                if let Some(status) = service.has_ended() {
                    self.wrong.push(format!("ours ended by itself: {status}"));
                } else if kill {
                    service.kill().await;
                } else {
                    service.terminate();
                    self.wrong.extend(service.ended_badly().await.map(|how| format!("ours {how}")));
                }
            }
            Hand::Theirs(player) if kill => player.kill().await,
            Hand::Theirs(player) => player.terminate().await,
        }
    }
}
