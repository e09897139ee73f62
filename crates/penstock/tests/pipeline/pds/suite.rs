//! Accounts that do everything at random, on two servers, while processes are killed and the directory goes and comes.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::faults::from_env;
use crate::rig::eventually;

use super::records;
use super::stage::Stage;
use super::world::{Account, World};

/// How many accounts there are at a time.
const ACCOUNTS: usize = 8;

/// An account, where it is, and how often its handle changed.
struct Person {
    account: Account,
    server: usize,
    changes: u32,
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write,
    WriteEveryKind,
    RotateKey,
    Move,
    RestForAWhile,
    ChangeHandle,
    Delete,
    KillIngest,
    KillWorker,
    DirectoryAway,
}

impl Step {
    /// Each as often as it stands here.
    const ALL: [Self; 16] = [
        Self::Write,
        Self::Write,
        Self::Write,
        Self::Write,
        Self::WriteEveryKind,
        Self::WriteEveryKind,
        Self::RotateKey,
        Self::RotateKey,
        Self::Move,
        Self::Move,
        Self::RestForAWhile,
        Self::ChangeHandle,
        Self::Delete,
        Self::KillIngest,
        Self::KillWorker,
        Self::DirectoryAway,
    ];
}

/// `make pds`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; make pds runs it"]
async fn pds_suite() {
    let seed = from_env("SEED", rand::random::<u32>().into());
    let minutes = from_env("MINUTES", 5);
    println!("seed {seed}, {minutes} minutes");
    let Some(world) = World::start(2).await else { return };
    let mut random = StdRng::seed_from_u64(seed);
    let mut stage = Stage::enforcing(&world).await;
    stage.set("PENSTOCK_WORKER_DELETE_GRACE", "2s");
    stage.set("PENSTOCK_WORKER_CLAIM_TIME", "1s");
    stage.set("PENSTOCK_INGEST_LEASE_TIME", "500ms");
    let (mut ingest, mut worker) = (stage.ingest(), stage.worker("w-0"));
    let mut people = Vec::new();
    let mut gone = Vec::new();
    let mut names = 0_u32..;
    let (end, mut steps) = (Instant::now() + Duration::from_secs(60 * minutes), 0_u32);
    while Instant::now() < end {
        while people.len() < ACCOUNTS {
            let server = random.random_range(0..2);
            let account = world.account(server, &format!("person{}", names.next().unwrap())).await;
            world.post(&account, "first").await;
            people.push(Person { account, server, changes: 0 });
        }
        let step = *Step::ALL.choose(&mut random).unwrap();
        let (which, other) = (random.random_range(0..ACCOUNTS), random.random_range(0..ACCOUNTS));
        let did = people[which].account.did.clone();
        match step {
            Step::Write => {
                for number in 0..random.random_range(1..20) {
                    world.post(&people[(which + number) % ACCOUNTS].account, "another one").await;
                }
            }
            Step::WriteEveryKind => {
                let (account, other) = (people[which].account.clone(), people[other].account.clone());
                let post = world.post(&other, "liked").await;
                records::of_every_kind(&world, &account, &other, &post).await;
            }
            Step::RotateKey => {
                // Commits that were signed before are read before, with the key that they were signed with.
                stage.ingested(&world).await;
                world.tell("rotate_key", json!({"did": did, "announced": random.random_bool(0.5)})).await;
            }
            Step::Move => {
                stage.ingested(&world).await;
                let (from, to) = (people[which].server, 1 - people[which].server);
                let person = &mut people[which];
                person.changes += 1;
                person.server = to;
                let (name, _) = person.account.handle.split_once('.').unwrap();
                // Whoever comes back finds nothing left of the account.
                person.account.handle = format!("{name}.pds{}.test", to + 1);
                world.tell("move", json!({"did": did, "to": to, "handle": person.account.handle})).await;
                world.post(&person.account, "from here on here").await;
                if random.random_bool(0.5) {
                    world.tell("deactivate", json!({"did": did, "server": from})).await;
                    stage.ingested(&world).await;
                }
                world.tell("delete", json!({"did": did, "server": from})).await;
            }
            Step::RestForAWhile => {
                world.tell("deactivate", json!({"did": did})).await;
                if random.random_bool(0.5) {
                    stage.ingested(&world).await;
                }
                world.tell("activate", json!({"did": did})).await;
            }
            Step::ChangeHandle => {
                let person = &mut people[which];
                person.changes += 1;
                let (name, domain) = person.account.handle.split_once('.').unwrap();
                let name = name.split('-').next().unwrap();
                person.account.handle = format!("{name}-{}.{domain}", person.changes);
                world.tell("change_handle", json!({"did": did, "handle": person.account.handle})).await;
            }
            Step::Delete => {
                world.tell("delete", json!({"did": did})).await;
                gone.push(people.swap_remove(which).account);
            }
            Step::KillIngest => {
                ingest.kill().await;
                world.post(&people[which].account, "while nobody reads").await;
                ingest = stage.ingest();
            }
            Step::KillWorker => {
                worker.kill().await;
                steps += 1;
                worker = stage.worker(&format!("w-{steps}"));
            }
            Step::DirectoryAway => {
                world.directory(false).await;
                world.post(&people[which].account, "while the directory is away").await;
                world.directory(true).await;
            }
        }
        steps += 1;
    }
    stage.caught_up(&world).await;
    println!("{steps} steps, {} events, {} accounts deleted", world.relayed().await, gone.len());
    for Person { account, .. } in &people {
        records::assert_rows_are_those_of(&world, &stage.rig, account).await;
        eventually("it is active", async || stage.is_active(account).await).await;
        stage.shows_handle(account, &account.handle).await;
    }
    for account in &gone {
        eventually("rows of deleted accounts go", async || records::rows(&stage.rig, account).await.is_empty()).await;
    }
    stage.assert_nothing_failed().await;
    worker.stop().await;
    ingest.stop().await;
}
