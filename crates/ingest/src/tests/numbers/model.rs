//! The same histories, through the parts that judge alone: thousands of them in a second.

use std::collections::HashMap;

use penstock_core::live::Source;
use penstock_core::settings::Start;
use tokio::time::Instant;

use super::*;
use crate::intake::resets::{Reset, Resets};
use crate::intake::seam::{Seam, Verdict};
use crate::intake::written::Mark;
use crate::resume::position::Position;

/// Ingest without sockets and Redis: what it would keep, and what it would write.
struct Ingesting {
    hosts: [Host; 2],
    at: usize,
    seam: Option<Seam>,
    position: Position,
    host_resets: Resets,
    stream: HashMap<u64, usize>,
    sent: Vec<u64>,
    connections: usize,
    rereads: usize,
    resets: usize,
}

impl Ingesting {
    fn name(at: usize) -> String {
        format!("host{at}")
    }

    /// Connects, and takes what the host has for the cursor.
    fn connect(&mut self) {
        loop {
            self.connections += 1;
            let (host, now) = (Self::name(self.at), jiff::Timestamp::now());
            let begin = match self.host_resets.begin(&host) {
                Some(anew) => self.position.begin_after_reset(&host, anew, now),
                None => self.position.begin(&host, Start::Oldest, now),
            };
            if let Some((left, head)) = self.position.left(&host, now) {
                self.position.standby.insert(left, head);
            }
            self.seam = Some(begin.seam);
            let backlog = self.hosts[self.at].backlog(begin.ask);
            let is_over = match backlog {
                Some(backlog) => backlog.into_iter().try_for_each(|sent| self.take(&sent)).is_ok(),
                None => {
                    self.anew();
                    false
                }
            };
            if is_over {
                return;
            }
        }
    }

    /// Decides what is done about a host that restarted its sequence.
    fn anew(&mut self) -> Reset {
        let host = Self::name(self.at);
        let anew = self.host_resets.decide(&host, Instant::now());
        self.resets += 1;
        self.rereads += usize::from(anew == Reset::FromOldest);
        self.host_resets.begin_with(&host, anew);
        anew
    }

    /// Takes what comes on the connection; an error where it is given up behind it.
    fn take(&mut self, sent: &Sent) -> Result<(), ()> {
        let Some(mut seam) = self.seam.take() else { return Err(()) };
        self.sent.push(sent.id);
        let mark = Mark { seq: sent.seq, print: u32::try_from(sent.id).unwrap() };
        let verdict = seam.judge(mark, sent.time.parse().ok(), jiff::Timestamp::now());
        if matches!(verdict, Verdict::Repeat | Verdict::Pass) {
            if verdict == Verdict::Pass {
                self.host_resets.begun(&Self::name(self.at));
                self.position.cursor = seam.cursor();
                self.position.written = seam.cursor().map(|cursor| (cursor, seam.kept()));
            }
            self.seam = Some(seam);
            return Ok(());
        }
        *self.stream.entry(sent.id).or_default() += 1;
        self.host_resets.begun(&Self::name(self.at));
        let mut then = Ok(());
        if verdict == Verdict::TakeReset {
            let host = Self::name(self.at);
            if self.anew() == Reset::FromOldest {
                then = Err(());
            } else {
                self.host_resets.begun(&host);
                seam.follow_reset();
            }
        }
        self.position.cursor = seam.cursor();
        self.position.written = seam.cursor().map(|cursor| (cursor, seam.kept()));
        self.position.source = Some(Source { host: Self::name(self.at), first_id: "1-0".to_owned(), cursor_key: None });
        self.seam = Some(seam);
        then
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Leave => {
                self.at = 1 - self.at;
                self.connect();
            }
            Step::Restart => {
                self.host_resets = Resets::default();
                self.connect();
            }
            step => {
                for act in self.hosts[self.at].act(step) {
                    let goes_on = match act {
                        Act::Send(sent) => self.take(&sent).is_ok(),
                        Act::Cut => false,
                    };
                    if !goes_on {
                        self.connect();
                    }
                }
            }
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice::new(seed);
    let says_future = dice.below(2) == 0;
    let steps = steps(&mut dice);
    let first = Host::new(1_000 + dice.below(9_000), 0, says_future);
    let second = Host::new(1 + dice.below(90_000), 500_000, says_future);
    let mut ingesting = Ingesting {
        hosts: [first, second],
        at: 0,
        seam: None,
        position: Position::default(),
        host_resets: Resets::default(),
        stream: HashMap::new(),
        sent: Vec::new(),
        connections: 0,
        rereads: 0,
        resets: 0,
    };
    ingesting.connect();
    for step in &steps {
        ingesting.step(*step);
    }
    let Ingesting { stream, sent, connections, rereads, resets, .. } = ingesting;
    let missing: Vec<_> = sent.iter().filter(|id| !stream.contains_key(id)).collect();
    assert!(missing.is_empty(), "seed {seed}: {missing:?} of {steps:?}");
    let count = |is: fn(&Step) -> bool| steps.iter().filter(|step| is(step)).count();
    let leaves = count(|step| matches!(step, Step::Leave));
    let restarts = count(|step| matches!(step, Step::Restart));
    let cuts = count(|step| matches!(step, Step::Cut | Step::Reset { .. }));
    let most = stream.values().copied().max().unwrap_or_default();
    // What a host that restarted its sequence had sent above the new line it may send once more.
    assert!(most <= 1 + resets + leaves, "seed {seed}: {most} copies, {resets} resets, after {steps:?}");
    assert!(rereads <= 2 * (1 + restarts), "seed {seed}: {rereads} rereads after {steps:?}");
    let bound = 1 + cuts + leaves + restarts + resets;
    assert!(connections <= bound, "seed {seed}: {connections} connections, at most {bound}, after {steps:?}");
    if rereads == 0 && leaves == 0 {
        assert_eq!(most, 1, "seed {seed}: {steps:?}");
    }
}

#[test]
fn whatever_hosts_do_every_event_that_was_sent_is_written() {
    for seed in 0..cases(2_000) {
        run(seed);
    }
}
