//! What befalls the relay, ingest and Redis.

use std::collections::HashMap;

use fred::interfaces::{KeysInterface, LuaInterface, StreamsInterface};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use penstock_local::testing::TestRedis;
use penstock_replay::{Fault as Whim, Handle};
use tokio::time::{Duration, sleep, timeout};

use super::crew::Crew;
use super::history::History;
use super::odd;
use super::plan::{Fault, Who};
use super::run::Lane;
use super::stage::{self, Links, becomes, tell};
use crate::rig::Rig;

/// The upper half of the pipeline.
pub(crate) struct Upstream<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) links: &'a Links,
    pub(crate) redis: TestRedis,
    pub(crate) relay: Handle,
    pub(crate) history: History,
    pub(crate) ingests: Crew<'a>,
    pub(crate) keeps_stream: bool,
    /// From which number on the stream must be whole, where it was lost.
    pub(crate) whole_from: Option<u64>,
}

/// Empties a Redis, or deletes its stream alone, and returns the cursor that it had.
const LOSE: &str = "
local cursor = redis.call('GET', KEYS[2]) or '0'
if ARGV[1] == 'all' then redis.call('FLUSHALL') else redis.call('DEL', KEYS[1]) end
return cursor";

type Entry = (String, HashMap<String, String>);

// === impl Upstream ===

impl Lane for Upstream<'_> {
    async fn strike(&mut self, fault: &Fault) -> Result<bool, String> {
        match fault {
            Fault::Blow(Who::Ingest(which), blow, pause) => self.ingests.strike(*which, *blow, *pause).await,
            Fault::RedisDown { kill, pause } => {
                if *kill {
                    self.redis.kill();
                } else {
                    self.redis.stop().await.unwrap();
                }
                sleep(*pause).await;
                self.redis.restart().await.unwrap();
            }
            Fault::RedisFrozen(pause) => {
                let pid = Pid::from_raw(self.redis.pid().unwrap().cast_signed());
                kill(pid, Signal::SIGSTOP).unwrap();
                sleep(*pause).await;
                kill(pid, Signal::SIGCONT).unwrap();
            }
            Fault::Promoted(lag) => return self.promote(*lag).await,
            Fault::RedisEmptied => {
                self.before_a_loss().await?;
                self.links.close_redis();
                let last = self.cursor().await;
                self.redis.restart_empty().await.unwrap();
                self.links.open_redis(self.redis.port());
                self.after_a_loss(last).await?;
            }
            Fault::RedisFlushed => return self.lose("all").await,
            Fault::StreamDeleted => return self.lose("stream").await,
            Fault::Relay(whim) => _ = self.relay.inject(whim.clone()).await.unwrap(),
            Fault::Restarted => return self.restart().await,
            Fault::Cut(_) | Fault::Trapped { .. } | Fault::Weather(..) => return Ok(self.links.spoil(fault).await),
            other => panic!("{other:?} is not upstream"),
        }
        Ok(true)
    }
}

impl Upstream<'_> {
    /// Lets a replica take over that missed the last entries.
    async fn promote(&mut self, lag: Duration) -> Result<bool, String> {
        let replica = stage::redis().await;
        let (old, new) = (self.redis.port(), replica.port());
        tell(new, &format!("REPLICAOF 127.0.0.1 {old}")).await.ok_or("the replica does not answer")?;
        let in_step = becomes(async || {
            let info = tell(new, "INFO replication").await.unwrap_or_default();
            info.contains("master_link_status:up") && info.contains("master_sync_in_progress:0")
        });
        if !in_step.await {
            return Err("the replica does not get in step".to_owned());
        }
        tell(new, "REPLICAOF NO ONE").await.ok_or("the replica does not answer")?;
        sleep(lag).await;
        self.links.close_redis();
        let last = self.cursor().await;
        self.links.open_redis(new);
        self.links.observer.set_upstream(new);
        self.links.observer.cut();
        self.redis = replica;
        self.caught_up(last).await?;
        Ok(true)
    }

    async fn lose(&mut self, what: &str) -> Result<bool, String> {
        self.before_a_loss().await?;
        let keys = vec![self.rig.keys.stream(), self.rig.keys.cursor()];
        let lost: Result<String, _> = self.rig.client.eval(LOSE, keys, vec![what]).await;
        let Ok(last) = lost else { return Ok(false) };
        self.after_a_loss(last.parse().unwrap()).await?;
        Ok(true)
    }

    /// What a relay no longer has must be in PostgreSQL before Redis loses it: who lost it from both would be right to miss it.
    async fn before_a_loss(&mut self) -> Result<(), String> {
        if !self.history.is_restarted() {
            return Ok(());
        }
        // The checkpoint too: a relay that has said all that it ever will gives a cursor from before nothing to notice by.
        let settled = becomes(async || {
            let checkpoint: Result<i64, _> =
                sqlx::query_scalar("SELECT seq FROM penstock.checkpoint").fetch_one(&self.rig.pool).await;
            checkpoint.is_ok_and(|seq| self.history.is_present(seq.cast_unsigned()))
        });
        if settled.await { Ok(()) } else { Err("the old sequence is not settled".to_owned()) }
    }

    async fn after_a_loss(&mut self, last: u64) -> Result<(), String> {
        // Where only the stream is gone, ingest goes back once a worker has found out.
        let noticed = becomes(async || {
            let incarnation: Option<i64> = self.rig.client.exists(self.rig.keys.incarnation()).await.ok();
            incarnation == Some(1) && self.rig.group().await.is_some()
        });
        if !noticed.await {
            return Err("the group does not come back".to_owned());
        }
        if !self.keeps_stream {
            self.whole_from = Some(last);
            return self.caught_up(last).await;
        }
        let kept = becomes(async || self.rig.keep_stream_if_there().await);
        if !kept.await {
            return Err("the stream does not come back".to_owned());
        }
        self.caught_up(last).await?;
        // What nobody held may be trimmed already.
        let first: Result<Vec<Entry>, _> = self.rig.client.xrange(self.rig.keys.stream(), "-", "+", Some(1)).await;
        let first = first.map_err(|error| error.to_string())?;
        self.whole_from = Some(first.first().map_or(last, |first| odd::base(seq(first))).max(last));
        Ok(())
    }

    /// Waits until everything has been read again.
    async fn caught_up(&self, last: u64) -> Result<(), String> {
        let caught_up = becomes(async || self.cursor().await >= last || self.rig.rests_at(last).await);
        if caught_up.await { Ok(()) } else { Err(format!("the cursor does not come back to {last}")) }
    }

    async fn restart(&mut self) -> Result<bool, String> {
        // What nobody read before the restart is nobody's to miss, but then the stream does not tell where it came.
        if !becomes(async || self.newest().await > 0).await {
            return Ok(false);
        }
        let before = self.newest().await;
        self.history.restart(self.relay.head(), self.relay.skipped());
        self.relay.inject(Whim::Restart(Box::new(self.history.settings()))).await.unwrap();
        let seen = becomes(async || self.history.is_present(self.newest().await));
        if !seen.await {
            return Err(format!("nothing of the new sequence is in the stream, whose last number was {before}"));
        }
        let mut end = "+".to_owned();
        loop {
            let page: Result<Vec<Entry>, _> =
                self.rig.client.xrevrange(self.rig.keys.stream(), end.clone(), "-", Some(1_000)).await;
            let Ok(page) = page else { continue };
            if let Some(read) = page.iter().map(seq).find(|seq| !self.history.is_present(*seq)) {
                self.history.ended_at(read);
                return Ok(true);
            }
            let Some((id, _)) = page.last() else { return Err("the old sequence is gone".to_owned()) };
            end = format!("({id}");
        }
    }

    /// The cursor; 0 where there is none, or nobody to ask.
    async fn cursor(&self) -> u64 {
        let asked = timeout(Duration::from_secs(2), self.rig.client.get(self.rig.keys.cursor()));
        asked.await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// The newest number in the stream; 0 where there is none.
    async fn newest(&self) -> u64 {
        let stream = self.rig.keys.stream();
        let asked = timeout(Duration::from_secs(2), self.rig.client.xrevrange(stream, "+", "-", Some(1)));
        let newest: Vec<Entry> = asked.await.ok().and_then(Result::ok).unwrap_or_default();
        newest.first().map(seq).unwrap_or_default()
    }
}

fn seq((_, fields): &Entry) -> u64 {
    fields["seq"].parse().unwrap()
}
