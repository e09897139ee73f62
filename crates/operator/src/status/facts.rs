//! What is known of a pipeline.

use jiff::Timestamp;
use penstock_core::backfill::Backlog;
use penstock_core::live::{Claim, Status};
use penstock_core::redis::Memory;
use penstock_core::trouble::Trouble;
use penstock_core::verified::Verified;

use super::pods::PodTrouble;
use super::rollout::Rollout;

/// From how much of its memory on Redis counts as full, in percent: what a write needs beyond that it refuses.
const FULL: u64 = 99;

/// From how much of its memory on Redis is why ingest pauses, in percent: what ingest resumes below.
const SHORT: u64 = 50;

/// What is known of a pipeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    /// The generation that was reconciled last.
    pub(crate) generation: Option<i64>,
    /// The pipeline's name, for the commands in messages.
    pub(crate) name: String,
    pub(crate) deleting: bool,
    pub(crate) suspend: bool,
    /// Whether a person stopped the operator's hands.
    pub(crate) paused: bool,
    /// Whether the number of workers is written in the resource.
    pub(crate) fixed: bool,
    pub(crate) ingest: PartFacts,
    pub(crate) workers: PartFacts,
    pub(crate) dashboard: PartFacts,
    pub(crate) heal: HealFacts,
    pub(crate) outcome: Outcome,
    pub(crate) migration: Migration,
    /// The Job that a new image waits for, where no migration is its proof.
    pub(crate) image: Option<ImageProof>,
    /// The hash of the schema that the workers need.
    pub(crate) schema: String,
    /// The label selector of the workers' pods.
    pub(crate) selector: Option<String>,
    /// What was asked for and cannot be had in this cluster.
    pub(crate) left_out: Vec<String>,
    /// What keeps pods from running, as far as somebody looked: only while something is not ready.
    pub(crate) pods: Vec<PodTrouble>,
    /// What Redis showed when it was read last; none before the first time.
    pub(crate) redis: Option<Reading>,
    /// The address of Redis, masked.
    pub(crate) redis_address: String,
    /// Entries that workers hold; none where that is not known.
    pub(crate) pending: Option<u64>,
    /// Entries that lie with a consumer that lets them lie, as far as known.
    pub(crate) stranded: u64,
}

/// What is known of a part that has pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PartFacts {
    pub(crate) enabled: bool,
    /// Its Deployment, where there is one.
    pub(crate) rollout: Option<Rollout>,
}

/// What is known of the healers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HealFacts {
    /// Whether there are to be any.
    pub(crate) enabled: bool,
    /// Whether none has been ready yet.
    pub(crate) starting: bool,
    /// What waits, by the word of one of them.
    pub(crate) backlog: Option<Backlog>,
    /// Why none says.
    pub(crate) unreachable: Option<String>,
}

/// How the last reconcile ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Outcome {
    /// There was none yet.
    #[default]
    None,
    /// Everything stands as it should.
    Applied,
    /// The resource is not valid as it is written.
    Refused(Why),
    /// A Secret or a key that it names is not there yet.
    Awaits(Why),
    /// Something in the cluster prevents it.
    Failed(Why),
}

/// A reason in one word, and in a sentence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Why {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What became of the tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Migration {
    /// Nobody asked for it.
    #[default]
    NotOurs,
    /// The Job has not come to its end.
    Running {
        job: String,
    },
    Done,
    Failed {
        job: String,
    },
}

/// A new image of which no pod has run yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ImageProof {
    /// Whether its Job has failed.
    pub(crate) failed: bool,
    pub(crate) message: String,
}

/// The last try to read Redis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reading {
    /// Nothing was read, and why.
    Unreachable(String),
    Read(Box<Snapshot>),
}

/// What ingest reports of itself in Redis, and who holds the prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// Absent while no ingest runs.
    pub(crate) status: Option<Status>,
    pub(crate) cursor: Option<String>,
    pub(crate) event_time: Option<Timestamp>,
    pub(crate) paused: bool,
    /// How many times events are known to be lost.
    pub(crate) data_loss: u64,
    /// What ingest found of the commits; absent where it tells nothing.
    pub(crate) verified: Option<Verified>,
    /// When all this was read.
    pub(crate) at: Timestamp,
    /// What the pipeline's services say of a PostgreSQL that does not answer or refuses them; absent while all is well.
    pub(crate) database: Option<Trouble>,
    /// How much memory Redis uses; absent where it does not say.
    pub(crate) memory: Option<Memory>,
    pub(crate) claim: Option<Claim>,
    /// Who this pipeline is in the claim.
    pub(crate) ours: String,
    /// The key of the claim, and that of ingest's state.
    pub(crate) claim_key: String,
    pub(crate) state_key: String,
}

// === impl Facts ===

impl Facts {
    /// Returns what Redis showed, where it showed anything.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        match &self.redis {
            Some(Reading::Read(snapshot)) => Some(snapshot),
            Some(Reading::Unreachable(_)) | None => None,
        }
    }

    /// Lists the parts that have pods, each with its component.
    pub(crate) fn parts(&self) -> [(&PartFacts, &'static str); 3] {
        [(&self.ingest, "ingest"), (&self.workers, "worker"), (&self.dashboard, "dashboard")]
    }

    /// Says whether some pod may not run as it should, so that it is worth to look at them.
    pub(crate) fn wants_pods(&self) -> bool {
        let migrates = matches!(self.migration, Migration::Running { .. } | Migration::Failed { .. });
        !self.suspend
            && (migrates
                || self.heal.starting
                || self.parts().iter().any(|(part, _)| part.enabled && !part.is_settled()))
    }

    /// Returns the Job that migrates, while it does.
    pub(crate) fn migrating(&self) -> Option<&str> {
        match &self.migration {
            Migration::Running { job } | Migration::Failed { job } => Some(job),
            Migration::NotOurs | Migration::Done => None,
        }
    }

    /// Returns what keeps the pods of a component from running.
    pub(crate) fn trouble_of(&self, component: &str) -> Option<&PodTrouble> {
        self.pods.iter().find(|trouble| trouble.component == component)
    }

    /// Says whether everything is there but the first look at Redis.
    pub(crate) fn awaits_redis(&self) -> bool {
        self.outcome == Outcome::Applied && !self.deleting && !self.suspend && self.redis.is_none()
    }
}

// === impl PartFacts ===

impl PartFacts {
    /// Says whether its pods are there, ready and of the version that is asked for.
    pub(crate) fn is_settled(&self) -> bool {
        self.rollout.as_ref().is_some_and(Rollout::is_settled)
    }

    pub(crate) fn pods(&self) -> i32 {
        self.rollout.as_ref().map_or(0, |rollout| rollout.replicas)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Returns how far ingest is behind, in seconds.
    pub(crate) fn lag(&self, now: Timestamp) -> Option<i64> {
        self.event_time.map(|event| now.duration_since(event).as_secs().max(0))
    }

    /// Says how full Redis is, where that is what keeps writes out: used and most bytes.
    pub(crate) fn full(&self) -> Option<(u64, u64)> {
        let memory = self.memory.as_ref()?;
        let max = memory.max?;
        (memory.used >= max / 100 * FULL).then_some((memory.used, max))
    }

    /// Says whether it is Redis' memory that is short, and not the room for the stream.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.max.is_some_and(|max| memory.used >= max / 100 * SHORT))
    }

    /// Returns who holds the prefix, where that is not this pipeline.
    pub(crate) fn other_holder(&self) -> Option<&str> {
        self.claim.as_ref().map(|claim| claim.pipeline.as_str()).filter(|holder| *holder != self.ours)
    }
}
