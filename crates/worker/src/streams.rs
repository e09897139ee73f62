//! The two streams of a worker, each with what its tasks share, and those tasks.
//!
//! ```text
//! first stream ──▶ read ─┐
//! idle entries ──▶ claim ┴▶ gather ─▶ write (two at once) ─▶ acknowledged
//!                    └▶ suspects          └▶ in parts
//! ```
//!
//! The second stream goes the same way, in small batches and one transaction at a time: so a row or a repo that both want is
//! never locked for long, and a worker that has its hands full of it takes what comes on the first at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use penstock_core::dead_letter::Bounds;
use penstock_core::live::Claim;
use penstock_core::settings::Settings;
use penstock_identity::Identities;
use penstock_telemetry::admin::Health;
use penstock_telemetry::tasks::Tasks;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex, Notify, RwLock, mpsc};
use tokio_util::sync::CancellationToken;

use crate::apply::{gather, in_parts, settle, suspects};
use crate::consumer::{Consumer, Delivery};
use crate::events::Events;
use crate::messages;
use crate::read::take_over::{self, Outlets};
use crate::read::{first_stream, second_stream};
use crate::settings;
use crate::state::added_letters::AddedLetters;
use crate::state::held::{self, Held};
use crate::state::ops_limit::OpsLimit;
use crate::state::outages::Outages;
use crate::state::parts_queue::PartsQueue;
use crate::state::servers::Servers;
use crate::state::work::Work;
use crate::store::Store;
use crate::upkeep::{
    announce_name, check_handles, clean_up, copy_letters, mark_repos, measure_sizes, publish_counts, report_lag,
    save_checkpoint, settle_claims, settle_counts, show_pulse, watch_database,
};

/// What the tasks of one stream share, and the entries that are to be written in parts.
pub(crate) type Stream = (Arc<Work>, UnboundedReceiver<Delivery>);

/// Makes what the tasks of the first stream share.
pub(crate) fn first(
    settings: Arc<Settings>,
    (consumer, store, claim): (Consumer, Store, Claim),
    events: Events,
    servers: Arc<Servers>,
    health: &Health,
    cancel: &CancellationToken,
) -> Stream {
    let (to_parts, in_parts) = mpsc::unbounded_channel();
    let batch_size = settings.worker.batch_size;
    let second_held = settings::second_batch_size(batch_size) * settings::SECOND_HELD_BATCHES;
    let work = Work {
        parts_queue: PartsQueue::new(to_parts),
        parts_turn: Arc::new(Mutex::new(())),
        ops_limit: OpsLimit::new(settings.worker.batch_ops),
        held: Arc::new(Held::new(batch_size * settings::HELD_BATCHES, held::FIRST_BYTES)),
        held_beside: Arc::new(Held::new(second_held, held::SECOND_BYTES)),
        batch_size,
        is_bulk: false,
        is_drained: Arc::new(AtomicBool::new(false)),
        added_letters: Arc::new(AddedLetters::new(Bounds::in_postgres(&settings))),
        settings,
        consumer,
        claim,
        store,
        events: Arc::new(events),
        suspect_lock: Arc::new(RwLock::new(())),
        deleted_account: Arc::new(Notify::new()),
        counts_gone: Arc::new(Notify::new()),
        stop: cancel.child_token(),
        abandon: CancellationToken::new(),
        outages: Outages::new(health, Arc::clone(&servers)),
        servers,
    };
    (Arc::new(work), in_parts)
}

/// Makes what the tasks of the second stream share: all that those of the first do, but for what they hold and how they fare.
pub(crate) fn second(first: &Work, health: &Health) -> Stream {
    let (to_parts, in_parts) = mpsc::unbounded_channel();
    let work = Work {
        settings: Arc::clone(&first.settings),
        consumer: first.consumer.bulk(),
        claim: first.claim.clone(),
        store: first.store.clone(),
        held: Arc::clone(&first.held_beside),
        held_beside: Arc::clone(&first.held),
        parts_queue: PartsQueue::new(to_parts),
        parts_turn: Arc::clone(&first.parts_turn),
        ops_limit: OpsLimit::new(first.settings.worker.batch_ops),
        batch_size: settings::second_batch_size(first.batch_size),
        is_bulk: true,
        is_drained: Arc::clone(&first.is_drained),
        added_letters: Arc::clone(&first.added_letters),
        events: Arc::clone(&first.events),
        suspect_lock: Arc::clone(&first.suspect_lock),
        deleted_account: Arc::clone(&first.deleted_account),
        counts_gone: Arc::clone(&first.counts_gone),
        stop: first.stop.clone(),
        abandon: first.abandon.clone(),
        outages: Outages::new(health, Arc::clone(&first.servers)),
        servers: Arc::clone(&first.servers),
    };
    (Arc::new(work), in_parts)
}

/// Starts the tasks of the first stream, and all upkeep.
pub(crate) fn start_first(
    (work, in_parts): Stream,
    reader: Consumer,
    identities: Option<Identities>,
    health: &Health,
    tasks: &mut Tasks,
) {
    let (entries, decoded) = mpsc::unbounded_channel();
    let (to_suspects, suspects) = mpsc::unbounded_channel();
    let (to_writers, batches) = mpsc::channel(1);
    let batches = Arc::new(Mutex::new(batches));
    // A read waits for a command at most, and then for the pause after a failure.
    let heartbeat = health.heartbeat("reader", work.settings.redis.command_timeout * 3 + Duration::from_secs(10));
    let outlets = Outlets { entries: entries.clone(), suspects: to_suspects };
    let shared = || Arc::clone(&work);
    tasks.spawn("read", first_stream::read(shared(), reader, heartbeat, entries));
    tasks.spawn("claim", take_over::claim(shared(), outlets));
    tasks.spawn_fallible("gather", gather::gather(shared(), decoded, to_writers));
    for _ in 0..settings::WRITERS {
        tasks.spawn("write", settle::write(shared(), Arc::clone(&batches)));
    }
    tasks.spawn("alone", in_parts::write(shared(), in_parts));
    tasks.spawn("suspects", suspects::try_alone(shared(), suspects));
    tasks.spawn("publish", publish_counts::publish(shared()));
    tasks.spawn("announce", announce_name::announce(shared()));
    tasks.spawn("checkpoint", save_checkpoint::save(shared()));
    tasks.spawn("count", publish_counts::ensure_counts(shared()));
    tasks.spawn("opt-outs", clean_up::obey_opt_outs(shared()));
    tasks.spawn("sweep", clean_up::sweep(shared()));
    tasks.spawn_fallible("account claims", settle_claims::settle(shared(), identities.clone()));
    if let Some(identities) = identities {
        tasks.spawn_fallible("handles", check_handles::check(shared(), identities));
    }
    tasks.spawn("count claims", settle_claims::count(shared()));
    tasks.spawn("prune", clean_up::prune(shared()));
    tasks.spawn("bound letters", clean_up::bound_letters(shared()));
    tasks.spawn("copy letters", copy_letters::copy(shared()));
    tasks.spawn("mark repos", mark_repos::mark(shared()));
    tasks.spawn("settle", settle_counts::settle(shared()));
    tasks.spawn("database", watch_database::watch(shared(), health.check("postgres")));
    tasks.spawn("backlog", report_lag::report_backlog(shared()));
    tasks.spawn("growth", measure_sizes::measure(shared()));
    tasks.spawn("summary", report_lag::log_summary(shared()));
    messages::start(&work, tasks);
    // What goes on while the others drain.
    tasks.spawn_last("refresh", take_over::refresh(shared()));
    tasks.spawn_last("pulse", show_pulse::beat(shared()));
}

/// Starts the tasks of the second stream.
pub(crate) fn start_second((work, in_parts): Stream, tasks: &mut Tasks) {
    let (entries, decoded) = mpsc::unbounded_channel();
    let (to_suspects, suspects) = mpsc::unbounded_channel();
    let (to_writer, batches) = mpsc::channel(1);
    let outlets = Outlets { entries: entries.clone(), suspects: to_suspects };
    let shared = || Arc::clone(&work);
    tasks.spawn("read bulk", second_stream::read(shared(), entries));
    tasks.spawn("claim bulk", take_over::claim(shared(), outlets));
    tasks.spawn_fallible("gather bulk", gather::gather(shared(), decoded, to_writer));
    tasks.spawn("write bulk", settle::write(shared(), Arc::new(Mutex::new(batches))));
    tasks.spawn("alone of bulk", in_parts::write(shared(), in_parts));
    tasks.spawn("suspects of bulk", suspects::try_alone(shared(), suspects));
    tasks.spawn_last("refresh bulk", take_over::refresh(shared()));
}
