//! Made-up histories of a few repos, and the ways in which their stream can reach the database.
//!
//! A case says all that a run depends on, so that it can be run again and made smaller: the events in the order in which
//! they happened, how often and by whom they were written to the stream, and how the stream was dealt to workers.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

use penstock_core::data::Action;
use penstock_core::entry::{self, Account, Commit, Entry, Identity};
use penstock_core::stream::{Seq, StreamId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;

use super::records::{Kind, LONG_KEY, Op};

macro_rules! long {
    () => {
        "ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
    };
}

/// The last one's DID is longer than any column of the AppView's.
pub(super) const REPOS: [&str; 5] = ["did:plc:a", "did:plc:b", "did:plc:c", "did:plc:d", LONG_DID];

const LONG_DID: &str = concat!("did:web:", long!(), long!(), long!(), long!());

/// The first entry's ID: a multiple of 1,000, so that times have no fraction.
pub(super) const BEGIN: u64 = 1_782_000_000_000;

/// All that a run depends on.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// What happened, in order.
    pub(super) events: Vec<Event>,
    /// How it was written to the stream, but for the rest, which our ingest writes.
    pub(super) runs: Vec<Run>,
    /// Whether all read one host. Else those who say no revs read one of their own each, and push nothing once more.
    pub(super) one_host: bool,
    /// How the stream is cut into batches, over and over; a batch an entry where there is none.
    pub(super) cuts: Vec<Cut>,
    /// Whether deleted accounts keep their rows for a while.
    pub(super) defers: bool,
}

/// One event of one repo.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) repo: usize,
    pub(super) says: Says,
    /// How its first entry is delivered, and how every further one.
    pub(super) delivered: [Delivery; 2],
}

#[derive(Clone, Debug)]
pub(super) enum Says {
    /// A commit.
    Commit(Vec<Op>),
    /// An entry of a backfill, with neither rev nor seq.
    Fill(Vec<Op>),
    /// An identity event.
    Handle(Option<u8>),
    /// An account event: whether active, and why not.
    Account(bool, Option<&'static str>),
}

/// A producer that writes some events and then stops; the next one begins so many events before.
///
/// Whoever resumes from an older cursor writes again all that follows it: each run ends where it was, and the last one at
/// the end of the history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) events: usize,
    pub(super) back: usize,
    /// Whether it says no revs and no times, as the Python producer does.
    pub(super) python: bool,
    /// Whose sequence numbers it writes.
    pub(super) host: u64,
    /// How many of the events before its end it pushes once more afterwards, if it says no revs.
    pub(super) echo: usize,
}

/// How an entry reaches the workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    /// After how many later entries.
    pub(super) late: usize,
    /// And again after how many.
    pub(super) again: Option<usize>,
    /// Whether it comes as a dead letter that is replayed: under a new ID, with its old one beside it.
    pub(super) replayed: bool,
}

/// A batch of so many entries, who takes it, and whether and how many records are swept after it, whose row somebody
/// else prunes, and who opts out or comes back; and whether the time of all who were deleted until then is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) size: usize,
    pub(super) worker: usize,
    pub(super) sweep: Option<u32>,
    pub(super) prune: Option<usize>,
    pub(super) opt_out: Option<(usize, bool)>,
    pub(super) passes: bool,
}

/// What a worker does in one transaction.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Apply(Vec<Entry>),
    Sweep(u32),
    /// Not a worker's: the row of an account goes.
    Prune(&'static str),
    /// An account says whether it forbids its data to be collected, and the worker obeys while the stream ends there.
    OptOut(&'static str, bool, StreamId),
    /// The time of all deleted accounts is over, and those who have not come back lose their rows.
    Pass,
}

/// One entry of the stream: an event as somebody wrote it.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// Which event, from 0.
    pub(super) event: usize,
    pub(super) order: StreamId,
    pub(super) rev: Option<String>,
    pub(super) seq: Option<u64>,
    /// Seconds since 1970 of the commit, where it says them.
    pub(super) time: Option<i64>,
    /// What it changes, in order.
    pub(super) ops: Vec<Op>,
    again: bool,
}

// === strategies ===

/// Makes up cases of at most so many events.
pub(super) fn cases(events: usize) -> impl Strategy<Value = Case> {
    histories(events, || op(&Kind::ALL, 3, repo(), 5), 0..5)
}

/// The same where deleted accounts keep their rows for a while, and mostly come back.
pub(super) fn deferred(events: usize) -> impl Strategy<Value = Case> {
    cases(events).prop_map(|case| Case { defers: true, ..case })
}

/// The same where many records want few places.
pub(super) fn crowds(events: usize) -> impl Strategy<Value = Case> {
    histories(events, || op(&Kind::PAIRED, 16, 0..2_usize, 2), 0..12)
}

fn histories<O: Strategy<Value = Op>>(
    events: usize,
    op: impl Fn() -> O,
    ops: Range<usize>,
) -> impl Strategy<Value = Case> {
    let runs = vec(run(events), 0..4);
    (vec(event(op, ops), 1..events), prop_oneof![2 => Just(Vec::new()), 1 => runs], any::<bool>(), vec(cut(), 0..8))
        .prop_map(|(events, runs, one_host, cuts)| Case { events, runs, one_host, cuts, defers: false })
}

fn event<O: Strategy<Value = Op>>(op: impl Fn() -> O, ops: Range<usize>) -> impl Strategy<Value = Event> {
    let ops = || vec(op(), ops.clone());
    let account = select(vec![
        (false, Some("deleted")),
        (false, Some("deleted")),
        (true, None),
        (false, Some("deactivated")),
        (false, Some("takendown")),
    ]);
    let says = prop_oneof![
        14 => ops().prop_map(Says::Commit),
        2 => ops().prop_map(Says::Fill),
        1 => option::of(0..4_u8).prop_map(Says::Handle),
        2 => account.prop_map(|(active, status)| Says::Account(active, status)),
    ];
    (repo(), says, delivery(), delivery()).prop_map(|(repo, says, first, further)| Event {
        repo,
        says,
        delivered: [first, further],
    })
}

/// Seldom the one with the long DID.
fn repo() -> impl Strategy<Value = usize> {
    prop_oneof![12 => 0..REPOS.len() - 1, 1 => Just(REPOS.len() - 1)]
}

fn op(kinds: &[Kind], rkeys: u8, other: impl Strategy<Value = usize>, items: u8) -> impl Strategy<Value = Op> {
    let action = select(vec![Action::Create, Action::Create, Action::Update, Action::Delete]);
    let kind = select(kinds.to_vec());
    // A record seldom is too big for its frame.
    let bare = prop_oneof![9 => Just(false), 1 => Just(true)];
    // Nor are its key, its subject or what it says too long for their columns.
    let rkey = prop_oneof![12 => 0..rkeys, 1 => LONG_KEY..LONG_KEY + 2];
    let item = prop_oneof![12 => 0..items, 1 => Just(5)];
    let text = prop_oneof![12 => 0..58_u8, 1 => 58..60_u8];
    (kind, action, rkey, bare, other, item, text, any::<bool>()).prop_map(
        |(kind, action, rkey, bare, other, item, text, dated)| Op {
            kind,
            action,
            rkey,
            bare,
            other,
            item,
            text,
            dated,
        },
    )
}

fn run(events: usize) -> impl Strategy<Value = Run> {
    let echo = prop_oneof![1 => Just(0), 1 => 1..8_usize];
    (1..events, 0..events, any::<bool>(), 0..2_u64, echo).prop_map(|(events, back, python, host, echo)| Run {
        events,
        back,
        python,
        host,
        echo,
    })
}

fn delivery() -> impl Strategy<Value = Delivery> {
    let late = || prop_oneof![4 => Just(0), 3 => 0..6_usize, 2 => 0..60_usize];
    let again = prop_oneof![2 => Just(None), 1 => late().prop_map(Some)];
    (late(), again, prop_oneof![9 => Just(false), 1 => Just(true)]).prop_map(|(late, again, replayed)| Delivery {
        late,
        again,
        replayed,
    })
}

fn cut() -> impl Strategy<Value = Cut> {
    let size = prop_oneof![3 => 1..4_usize, 2 => 1..13_usize, 1 => Just(usize::MAX)];
    let sweep = prop_oneof![3 => Just(None), 1 => (1..4_u32).prop_map(Some)];
    let prune = prop_oneof![3 => Just(None), 1 => (0..REPOS.len()).prop_map(Some)];
    // Nobody with the long DID is known to the AppView.
    let opt_out = prop_oneof![9 => Just(None), 1 => (0..REPOS.len() - 1, any::<bool>()).prop_map(Some)];
    let passes = prop_oneof![4 => Just(false), 1 => Just(true)];
    (size, 0..4_usize, sweep, prune, opt_out, passes).prop_map(|(size, worker, sweep, prune, opt_out, passes)| Cut {
        size,
        worker,
        sweep,
        prune,
        opt_out,
        passes,
    })
}

// === impl Case ===

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.stream();
        for Written { event, order, rev, seq, ops, .. } in &stream {
            let Event { repo, says, .. } = &self.events[*event];
            let says: &dyn fmt::Debug = if ops.is_empty() { says } else { ops };
            writeln!(f, "{order} of {}, rev {rev:?}, seq {seq:?}: {says:?}", REPOS[*repo])?;
        }
        for (worker, step) in self.steps(&stream) {
            match step {
                Step::Apply(entries) => {
                    let ids: Vec<_> = entries.iter().map(|entry| entry.order.to_string()).collect();
                    writeln!(f, "w{worker} applies {}", ids.join(", "))?;
                }
                Step::Sweep(limit) => writeln!(f, "w{worker} sweeps {limit}")?,
                Step::Prune(did) => writeln!(f, "{did} is pruned")?,
                Step::Pass => writeln!(f, "the time of deleted accounts is over")?,
                Step::OptOut(did, forbids, last) => {
                    writeln!(f, "w{worker} obeys {did}, which forbids: {forbids}, at {last}")?;
                }
            }
        }
        Ok(())
    }
}

impl Case {
    /// Returns the stream: the events as they were written, in the order of their IDs.
    pub(super) fn stream(&self) -> Vec<Written> {
        let mut stream = Vec::new();
        let mut seen = 0;
        let mut at = 0;
        let rest = Run { events: self.events.len(), back: 0, python: false, host: 0, echo: 0 };
        for (run, Run { events, back, python, host, echo }) in self.runs.iter().chain([&rest]).enumerate() {
            let host = match (self.one_host, *python) {
                (true, _) => 0,
                (false, true) => 2 + run as u64,
                (false, false) => *host,
            };
            for _ in 0..*events {
                let Some(event) = self.events.get(at) else { break };
                let again = at < seen;
                at += 1;
                seen = seen.max(at);
                // A backfill runs once, whoever reads the relay.
                if matches!(event.says, Says::Fill(_)) && again {
                    continue;
                }
                self.push(&mut stream, at - 1, *python, host, again);
            }
            if *python && self.one_host {
                for event in at.saturating_sub(*echo)..at {
                    if self.can_echo(event, at) {
                        self.push(&mut stream, event, true, host, true);
                    }
                }
            }
            at = at.saturating_sub(*back);
        }
        self.drop_fills_without_order(&mut stream);
        stream
    }

    /// Returns whether an event may be pushed once more after others. Only commits have a number of their own; and an account
    /// event has none in the dialect of the client that does it, so that nothing tells an older commit from a later one.
    fn can_echo(&self, event: usize, at: usize) -> bool {
        let Event { repo, says: Says::Commit(_), .. } = &self.events[event] else { return false };
        !self.events[event..at]
            .iter()
            .any(|later| later.repo == *repo && matches!(later.says, Says::Account(false, Some("deleted"))))
    }

    fn push(&self, stream: &mut Vec<Written>, at: usize, python: bool, host: u64, again: bool) {
        let event = &self.events[at];
        let number = u64::try_from(at).unwrap();
        let position = u64::try_from(stream.len()).unwrap();
        let fills = matches!(event.says, Says::Fill(_));
        let ours = !python && !fills;
        stream.push(Written {
            event: at,
            order: StreamId { ms: BEGIN + position / 2 * 1000, seq: position % 2 },
            rev: ours.then(|| format!("3{number:012}")),
            // The numbers of two hosts lie far apart.
            seq: (!fills).then_some(number + 1 + host * 1_000_000_000_000),
            time: ours.then_some(1_783_000_000 + at.cast_signed() as i64 + 1),
            ops: match &event.says {
                // Without its record an op says something only in our own entries, so here it comes in no others.
                Says::Commit(ops) if self.runs.iter().any(|run| run.python) => {
                    ops.iter().filter(|op| op.action == Action::Delete || !op.bare).cloned().collect()
                }
                Says::Commit(ops) | Says::Fill(ops) => ops.clone(),
                Says::Handle(_) | Says::Account(..) => Vec::new(),
            },
            again,
        });
    }

    /// Drops what a backfill says of a record that something else may have stood at: a fill takes only a place that is
    /// empty when it comes, and is not remembered where it is not. So no order is promised between two fills of one
    /// record, nor between a fill and the traces of a record that a deletion of the account then takes.
    fn drop_fills_without_order(&self, stream: &mut [Written]) {
        let mut through = self.deleted_through(stream);
        for (_, step) in self.steps(stream) {
            if let Step::OptOut(did, _, last) = step {
                let repo = REPOS.iter().position(|repo| *repo == did).unwrap();
                through[repo] = through[repo].max(Some(last.next()));
            }
        }
        let mut traces: HashMap<(usize, String), StreamId> = HashMap::new();
        for Written { event, order, ops, rev, seq, .. } in stream.iter() {
            let Event { repo, .. } = &self.events[*event];
            if rev.is_some() || seq.is_some() {
                for op in ops {
                    let first = traces.entry((*repo, op.path())).or_insert(*order);
                    *first = (*first).min(*order);
                }
            }
        }
        let mut filled = BTreeSet::new();
        for Written { event, order, ops, .. } in stream {
            let Event { repo, says: Says::Fill(_), .. } = &self.events[*event] else { continue };
            if self.defers && through[*repo].is_some() {
                // Whether it was deleted in the end, and until when, is not known here.
                ops.clear();
            }
            ops.retain(|op| {
                let key = (*repo, op.path());
                let emptied = traces.get(&key).is_some_and(|first| Some(first) <= through[*repo].as_ref());
                let taken = Some(&*order) <= through[*repo].as_ref();
                (taken || !emptied) && filled.insert(key)
            });
        }
    }

    /// Returns the last entry that deletes each account.
    pub(super) fn deleted_through(&self, stream: &[Written]) -> [Option<StreamId>; REPOS.len()] {
        let mut through = [None; REPOS.len()];
        for written in stream {
            let event = &self.events[written.event];
            if let Says::Account(false, Some("deleted")) = event.says {
                through[event.repo] = Some(written.order);
            }
        }
        through
    }

    /// Deals the stream: what which worker does, in the order of the transactions where there is one.
    pub(super) fn steps(&self, stream: &[Written]) -> Vec<(usize, Step)> {
        let mut arrivals = Vec::new();
        for (at, written) in stream.iter().enumerate() {
            let Delivery { late, again, replayed } = self.events[written.event].delivered[usize::from(written.again)];
            let entry = self.entry(written, replayed);
            arrivals.push((at + late, entry.clone()));
            arrivals.extend(again.map(|again| (at + again, entry)));
        }
        arrivals.sort_by_key(|(at, _)| *at);
        let mut entries = arrivals.into_iter();
        let single = [Cut { size: 1, worker: 0, sweep: None, prune: None, opt_out: None, passes: false }];
        let cuts = if self.cuts.is_empty() { &single[..] } else { &self.cuts };
        let mut steps = Vec::new();
        for Cut { size, worker, sweep, prune, opt_out, passes } in cuts.iter().cycle() {
            let (times, batch): (Vec<_>, Vec<_>) = entries.by_ref().take(*size).unzip();
            let Some(now) = times.last() else { break };
            let last = stream.get(*now).or(stream.last()).unwrap().order;
            steps.push((*worker, Step::Apply(batch)));
            steps.extend(opt_out.map(|(repo, forbids)| (*worker, Step::OptOut(REPOS[repo], forbids, last))));
            steps.extend((*passes && self.defers).then_some((*worker, Step::Pass)));
            steps.extend(sweep.map(|limit| (*worker, Step::Sweep(limit))));
            steps.extend(prune.map(|repo| (*worker, Step::Prune(REPOS[repo]))));
        }
        steps
    }

    /// As [`Case::steps`], but for workers of whom none waits for another: whoever opts out stays out, and nothing comes
    /// after that.
    pub(super) fn steps_at_once(&self, stream: &[Written]) -> Vec<(usize, Step)> {
        let mut steps = self.steps(stream);
        steps.retain(|(_, step)| !matches!(step, Step::Pass));
        for (_, step) in &mut steps {
            if let Step::OptOut(_, forbids, last) = step {
                (*forbids, *last) = (true, stream.last().unwrap().order);
            }
        }
        steps
    }

    /// Returns an entry of an account that says nothing.
    pub(super) fn seen_again(&self, did: &str, stream: &[Written]) -> Entry {
        let order = stream.last().unwrap().order.next();
        let nothing = Commit {
            repo: did.to_owned(),
            rev: None,
            since: None,
            commit: None,
            time: None,
            ops: Vec::new(),
            missing: 0,
            proven: penstock_core::entry::Proven::default(),
        };
        Entry { id: order, order, seq: Seq::new(1), event: entry::Event::Commit(nothing) }
    }

    fn entry(&self, written: &Written, replayed: bool) -> Entry {
        let Event { repo, says, .. } = &self.events[written.event];
        let did = REPOS[*repo].to_owned();
        let event = match says {
            Says::Commit(_) | Says::Fill(_) => entry::Event::Commit(Commit {
                repo: did.clone(),
                rev: written.rev.clone(),
                since: None,
                commit: None,
                time: written.time.map(|time| jiff::Timestamp::from_second(time).unwrap()),
                ops: written.ops.iter().map(|op| op.told(&did)).collect(),
                missing: 0,
                proven: penstock_core::entry::Proven::default(),
            }),
            Says::Handle(handle) => {
                let handle = handle.map(|handle| format!("h{handle}.example"));
                entry::Event::Identity(Identity { did, handle, time: None })
            }
            Says::Account(active, status) => {
                let status = status.map(str::to_owned);
                entry::Event::Account(Account { did, active: *active, status, time: None })
            }
        };
        let order = written.order;
        let id = if replayed { StreamId { ms: order.ms + 100_000_000, ..order } } else { order };
        Entry { id, order, seq: written.seq.and_then(Seq::new), event }
    }
}
