//! Whole repos over HTTP: whose they are, who signed them, and where they are.

use penstock_wire::EMPTY_TREE;

use super::*;
use crate::Source;
use crate::testing::{Reply, car, cid_of};

#[tokio::test]
async fn a_repo_is_handed_out_record_by_record_from_memory_and_from_disk() {
    let world = World::start().await.unwrap();
    let made = mixed(&did(1));
    world.put(made.clone());
    for spill in ["65536", "67108864"] {
        let repos = repos(&world, &[("heal.spill", spill)]);
        let mut repo = repos.fetch(&did(1)).await.unwrap();
        assert_eq!((&*repo.did, &*repo.rev, repo.source, repo.signed), (did(1).as_str(), REV, Source::Car, true));
        assert_eq!((repo.records, &repo.root), (701, made.blocks().tree.digest()));
        assert_eq!(repo.bytes, made.car().len() as u64);
        let records = all(&mut repo).await.unwrap();
        assert_same(&records, &made);
        assert!(repo.next(10, 10).await.unwrap().is_empty());
        assert_eq!(repo.unfit_count(), 0);
    }
}

#[tokio::test]
async fn an_empty_repo_has_no_records() {
    let world = World::start().await.unwrap();
    world.put(MadeRepo::new(&did(1), REV));
    let mut repo = repos(&world, &[]).fetch(&did(1)).await.unwrap();
    assert_eq!((repo.records, repo.root, repo.signed), (0, EMPTY_TREE, true));
    assert!(all(&mut repo).await.unwrap().is_empty());
}

#[tokio::test]
async fn only_the_account_itself_vouches_for_its_repo() {
    let world = World::start().await.unwrap();
    for n in 0..3 {
        world.put(MadeRepo::of_posts(&did(n), REV, 20));
    }
    let repos = repos(&world, &[]);
    // Another account's repo, though that is signed well.
    let other = MadeRepo::of_posts(&did(1), REV, 20).car();
    world.meddle(move |asked| (asked.method() == "com.atproto.sync.getRepo").then(|| Reply::bytes(other.clone())));
    assert_eq!(word(&repos.fetch(&did(0)).await), "commit");
    // A key that is not the account's.
    let mut stranger = MadeRepo::of_posts(&did(0), REV, 20);
    stranger.account.rotations = 9;
    let stranger = stranger.car();
    world.meddle(move |asked| (asked.method() == "com.atproto.sync.getRepo").then(|| Reply::bytes(stranger.clone())));
    let refused = repos.fetch(&did(0)).await;
    assert_eq!(word(&refused), "signature");
    assert!(refused.unwrap_err().is_final());
    // A commit without what was signed: the tree of another one.
    let (one, two) = (MadeRepo::of_posts(&did(0), REV, 20).blocks(), MadeRepo::of_posts(&did(0), REV, 21).blocks());
    let (_, mut forged) = one.blocks[0].clone();
    let at = forged.windows(32).position(|window| window == one.tree.digest()).unwrap();
    forged[at..at + 32].copy_from_slice(two.tree.digest());
    let root = cid_of(&forged);
    let mut blocks = two.blocks.clone();
    blocks.push((root, forged));
    let forged = car(&root, &blocks);
    world.meddle(move |asked| (asked.method() == "com.atproto.sync.getRepo").then(|| Reply::bytes(forged.clone())));
    assert_eq!(word(&repos.fetch(&did(0)).await), "signature");
    world.behave();
    assert_eq!(word(&repos.fetch(&did(0)).await), "ok");
}

#[tokio::test]
async fn a_key_that_was_changed_is_asked_for_once_more() {
    let world = World::start().await.unwrap();
    world.put(MadeRepo::of_posts(&did(0), REV, 20));
    let repos = repos(&world, &[]);
    assert_eq!(word(&repos.fetch(&did(0)).await), "ok");
    world.change(&did(0), |repo| repo.account.rotations += 1);
    // Within `identity.retryAfter` it is not asked for again.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(word(&repos.fetch(&did(0)).await), "ok");
}

#[tokio::test]
async fn a_repo_of_a_time_to_come_is_refused() {
    let world = World::start().await.unwrap();
    world.put(MadeRepo::of_posts(&did(0), "izzzzzzzzzzzz", 3));
    let refused = repos(&world, &[]).fetch(&did(0)).await.unwrap_err();
    assert!(refused.to_string().contains("time to come"), "{refused}");
}

#[tokio::test]
async fn an_account_that_has_moved_is_found_at_its_new_host() {
    let (world, new) = (World::start().await.unwrap(), World::start().await.unwrap());
    world.put(MadeRepo::of_posts(&did(0), REV, 20));
    let repos = repos(&world, &[]);
    assert_eq!(word(&repos.fetch(&did(0)).await), "ok");
    new.put(MadeRepo::of_posts(&did(0), "3kbbbbbbbbbbb", 21));
    world.host_at(&new.server.url());
    world.meddle(|asked| asked.path.starts_with("/xrpc/").then(|| Reply::error(400, "RepoDeactivated")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let repo = repos.fetch(&did(0)).await.unwrap();
    assert_eq!((&*repo.rev, repo.records), ("3kbbbbbbbbbbb", 21));
    assert_eq!(&*repos.latest(&did(0)).await.unwrap().rev, "3kbbbbbbbbbbb");
}

#[tokio::test]
async fn a_mirror_is_asked_where_the_host_does_not_answer_and_believed_no_more_than_it() {
    let (world, mirror) = (World::start().await.unwrap(), World::start().await.unwrap());
    for n in 0..4 {
        world.put(MadeRepo::of_posts(&did(n), REV, 20));
        mirror.put(MadeRepo::of_posts(&did(n), "3jaaaaaaaaaaa", 19));
    }
    mirror.change(&did(2), |repo| repo.account.rotations = 5);
    let repos = repos(&world, &[("heal.mirrors", &mirror.server.url())]);
    world.meddle(|asked| {
        let did = asked.parameter("did").unwrap_or_default();
        let is_gone = did == self::did(3);
        (asked.method() == "com.atproto.sync.getRepo")
            .then(|| if is_gone { Reply::error(400, "RepoTakendown") } else { Reply::Close })
    });
    // Taken down: the mirror still has it, and is not asked.
    let gone = repos.fetch(&did(3)).await;
    assert!(matches!(gone, Err(RepoError::Inactive { status: "takendown", .. })), "{gone:?}");
    assert_eq!(mirror.hits("com.atproto.sync.getRepo", &did(3)), 0);
    let repo = repos.fetch(&did(1)).await.unwrap();
    assert_eq!((&*repo.rev, repo.records), ("3jaaaaaaaaaaa", 19));
    // Signed by another key: the host's own failure is what is told.
    assert_eq!(word(&repos.fetch(&did(2)).await), "unreachable");
    assert_eq!(mirror.hits("com.atproto.sync.getRepo", &did(2)), 1);
}

#[tokio::test]
async fn what_cannot_be_laid_down_says_where() {
    let world = World::start().await.unwrap();
    world.put(MadeRepo::of_posts(&did(0), REV, 2_000));
    let flags = [("heal.spill", "65536"), ("heal.folder", "/proc/no/such/folder")];
    let error = repos(&world, &flags).fetch(&did(0)).await.unwrap_err();
    assert!(error.to_string().contains("/proc/no/such/folder") && error.to_string().contains("heal.folder"), "{error}");
    assert!(!error.is_final());
}
