//! Hosts that are slow, full, broken, or ill meaning.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;
use crate::testing::{Asked, Pace, Reply};

fn is_repo(asked: &Asked) -> bool {
    asked.method() == "com.atproto.sync.getRepo"
}

/// A world with one repo whose host answers with this.
async fn answering(reply: Reply) -> World {
    let world = World::start().await.unwrap();
    world.put(MadeRepo::of_posts(&did(0), REV, 200));
    world.meddle(move |asked| is_repo(asked).then(|| reply.clone()));
    world
}

#[tokio::test]
async fn each_way_to_fail_has_its_name() {
    let car = Bytes::from(MadeRepo::of_posts(&did(0), REV, 200).car());
    let half = car.slice(..car.len() / 2);
    let mut spoilt = car.to_vec();
    let at = spoilt.len() - 10;
    spoilt[at] ^= 1;
    let garbage = Bytes::from(vec![0x55; 100_000]);
    for (reply, expected, is_final) in [
        (Reply::error(500, "InternalServerError"), "unreachable", false),
        (Reply::error(502, "BadGateway"), "unreachable", false),
        (Reply::Close, "unreachable", false),
        (Reply::error(400, "RepoNotFound"), "not_found", true),
        (Reply::error(400, "RepoTakendown"), "inactive", true),
        (Reply::error(400, "RepoSuspended"), "inactive", true),
        (Reply::error(400, "RepoDeactivated"), "inactive", true),
        (Reply::error(400, "InvalidRequest"), "refused", true),
        (Reply::error(403, "Forbidden"), "refused", true),
        (Reply::Cut(half.clone()), "cut", false),
        (Reply::Cut(car.clone()), "cut", false),
        (Reply::Until(half), "cut", false),
        (Reply::bytes(Bytes::new()), "cut", false),
        (Reply::bytes(spoilt), "hash", true),
        (Reply::bytes(garbage), "car", true),
        (Reply::json(200, &json!({"not a car": "and longer than its first byte would say".repeat(9)})), "car", true),
        (Reply::Endless(Bytes::from(vec![0x24; 4_096])), "car", true),
        (Reply::to("https://[::1]/xrpc/com.atproto.sync.getRepo"), "refused", true),
        (Reply::to("http://169.254.169.254/latest/meta-data"), "refused", true),
        (Reply::to("http://10.0.0.1/"), "refused", true),
        (Reply::to("http://1.1.1.1/"), "refused", true),
        (Reply::to("ftp://1.1.1.1/"), "refused", true),
        (Reply::to("file:///etc/passwd"), "refused", true),
    ] {
        let world = answering(reply.clone()).await;
        let fetched = repos(&world, &[]).fetch(&did(0)).await;
        let Err(error) = fetched else { panic!("{reply:?} is a repo") };
        assert_eq!((error.word(), error.is_final()), (expected, is_final), "{error}");
    }
    // The one that cannot be told from a whole answer is one, where it is whole.
    let world = answering(Reply::Until(car)).await;
    assert_eq!(word(&repos(&world, &[]).fetch(&did(0)).await), "ok");
}

#[tokio::test]
async fn a_body_that_has_no_end_is_left_at_its_bound() {
    let made = MadeRepo::of_posts(&did(0), REV, 1);
    let cid = made.blocks().commit;
    // Sound blocks, again and again.
    let block = vec![7; 1_000];
    let section = crate::testing::car(&cid, &[(crate::testing::cid_of(&block), block)]);
    let header = crate::testing::car(&cid, &[]).len();
    let world = answering(Reply::Endless(section[header..].to_vec().into())).await;
    assert_eq!(word(&repos(&world, &[("heal.repoBytes", "300000")]).fetch(&did(0)).await), "car");
    let header = section[..header].to_vec();
    let body = Bytes::from([header, section[section.len() - 1_038..].repeat(400)].concat());
    let world = answering(Reply::Cut(body)).await;
    let error = repos(&world, &[("heal.repoBytes", "300000")]).fetch(&did(0)).await.unwrap_err();
    assert!(error.to_string().contains("heal.repoBytes"), "{error}");
}

#[tokio::test]
async fn a_host_that_refuses_for_a_while_is_not_asked_meanwhile_and_others_are() {
    let (world, well) = (World::start().await.unwrap(), World::start().await.unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    for (n, full) in [(0, true), (1, true), (2, false)] {
        let repo = MadeRepo::of_posts(&did(n), REV, 20);
        if full { world.put(repo) } else { well.put(repo) }
    }
    let counting = Arc::clone(&count);
    world.meddle(move |asked| {
        let headers = vec![("ratelimit-remaining", "0".to_owned()), ("retry-after", "77".to_owned())];
        is_repo(asked).then(|| {
            counting.fetch_add(1, Ordering::Relaxed);
            Reply::Say(429, headers, Bytes::from_static(br#"{"error":"RateLimitExceeded"}"#))
        })
    });
    let repos = repos(&world, &[]);
    for n in [0, 1, 0, 1] {
        let error = repos.fetch(&did(n)).await.unwrap_err();
        assert!(matches!(error, RepoError::Limited { .. }), "{error}");
        let retry_after = error.retry_after().unwrap();
        assert!(retry_after <= Duration::from_secs(77) && retry_after > Duration::ZERO, "{retry_after:?}");
        assert!(!error.is_final());
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    // Another host of another directory is not held up.
    assert_eq!(word(&self::repos(&well, &[]).fetch(&did(2)).await), "ok");
}

#[tokio::test]
async fn a_host_whose_limit_is_spent_is_not_asked_until_it_is_filled_again() {
    let world = World::start().await.unwrap();
    world.put(MadeRepo::of_posts(&did(0), REV, 20));
    let car = world.repo(&did(0)).unwrap().car();
    world.meddle(move |asked| {
        let headers = vec![("ratelimit-remaining", "0".to_owned()), ("ratelimit-reset", "120".to_owned())];
        is_repo(asked).then(|| Reply::Say(200, headers, car.clone().into()))
    });
    let repos = repos(&world, &[]);
    assert_eq!(word(&repos.fetch(&did(0)).await), "ok");
    assert_eq!(word(&repos.fetch(&did(0)).await), "limited");
    assert_eq!(world.hits("com.atproto.sync.getRepo", &did(0)), 1);
}

#[tokio::test]
async fn a_host_that_says_nothing_or_drips_is_given_up() {
    let car = Bytes::from(MadeRepo::of_posts(&did(0), REV, 200).car());
    let hang = answering(Reply::Hang).await;
    let wait = Duration::from_millis(300);
    let error = repos_with(&hang, &[], wait).fetch(&did(0)).await.unwrap_err();
    assert!(matches!(error, RepoError::Unreachable { .. }), "{error}");
    let drip = answering(Reply::Drip(car, Pace::new(1, Duration::from_millis(20)))).await;
    let repos = repos_with(&drip, &[], wait);
    assert_eq!(word(&repos.fetch(&did(0)).await), "slow");
    // And is left alone.
    assert_eq!(word(&repos.fetch(&did(0)).await), "unreachable");
    assert_eq!(drip.hits("com.atproto.sync.getRepo", &did(0)), 1);
}

#[tokio::test]
async fn a_private_host_is_not_asked_and_a_redirect_leads_on() {
    let world = World::start().await.unwrap();
    world.put(MadeRepo::of_posts(&did(0), REV, 20));
    let error = repos(&world, &[("identity.allowedNetworks", "10.0.0.0/8")]).fetch(&did(0)).await.unwrap_err();
    assert!(
        matches!(error, RepoError::Refused { .. }) && error.to_string().contains("identity.allowedNetworks"),
        "{error}"
    );
    assert_eq!(world.hits("com.atproto.sync.getRepo", &did(0)), 0);
    // A mirror is where the administrator says, and what it sends on to is behind the fence.
    let mirror = World::start().await.unwrap();
    mirror.put(MadeRepo::of_posts(&did(0), REV, 20));
    let there = world.server.url();
    mirror.meddle(move |asked| {
        let did = asked.parameter("did").unwrap_or_default();
        is_repo(asked).then(|| Reply::to(&format!("{there}/xrpc/com.atproto.sync.getRepo?did={did}")))
    });
    let mirrors = mirror.server.url();
    let fenced = [("identity.allowedNetworks", "10.0.0.0/8"), ("heal.mirrors", mirrors.as_str())];
    assert_eq!(word(&repos(&world, &fenced).fetch(&did(0)).await), "refused");
    assert_eq!(mirror.hits("com.atproto.sync.getRepo", &did(0)), 1);
    assert_eq!(world.hits("com.atproto.sync.getRepo", &did(0)), 0);
    world.host_at(&mirror.server.url());
    let repo = repos(&world, &[]).fetch(&did(0)).await.unwrap();
    assert_eq!(*repo.host, *world.server.address.to_string().split(':').next().unwrap());
    assert_eq!(world.hits("com.atproto.sync.getRepo", &did(0)), 1);
}

#[tokio::test]
async fn one_host_has_no_more_requests_at_a_time_than_the_setting_says() {
    let world = World::start().await.unwrap();
    for n in 0..12 {
        world.put(MadeRepo::of_posts(&did(n), REV, 20));
    }
    world.meddle(|asked| is_repo(asked).then_some(Reply::Hang));
    let asked = || world.server.asked().iter().filter(|asked| is_repo(asked)).count();
    let repos = repos(&world, &[("heal.ofHost", "3")]);
    let mut fetching = tokio::task::JoinSet::new();
    for n in 0..12 {
        let repos = repos.clone();
        fetching.spawn(async move { word(&repos.fetch(&did(n)).await) });
    }
    let begun = tokio::time::timeout(Duration::from_secs(60), async {
        while asked() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    begun.await.unwrap();
    // All twelve have been resolved by now, or soon are; the others wait.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(asked(), 3);
    fetching.abort_all();
    while fetching.join_next().await.is_some() {}
    // Who is given up makes room.
    world.behave();
    let mut repo = repos.fetch(&did(0)).await.unwrap();
    assert_eq!(all(&mut repo).await.unwrap().len(), 20);
}

#[tokio::test]
async fn who_does_not_wait_any_longer_leaves_nothing_behind() {
    let car = Bytes::from(MadeRepo::of_posts(&did(0), REV, 3_000).car());
    let world = World::start().await.unwrap();
    world.put(MadeRepo::of_posts(&did(0), REV, 3_000));
    let half = car.slice(..car.len() / 2);
    world.meddle(move |asked| is_repo(asked).then(|| Reply::Drip(half.clone(), Pace::new(1, Duration::ZERO))));
    let folder = std::env::temp_dir().join(format!("penstock-left-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let folder_text = folder.to_string_lossy().into_owned();
    let repos = repos(&world, &[("heal.spill", "65536"), ("heal.folder", &folder_text)]);
    for _ in 0..3 {
        let given_up = tokio::time::timeout(Duration::from_millis(50), repos.fetch(&did(0))).await;
        assert!(given_up.is_err() || given_up.unwrap().is_err());
    }
    world.behave();
    let mut repo = repos.fetch(&did(0)).await.unwrap();
    assert_eq!(all(&mut repo).await.unwrap().len(), 3_000);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    std::fs::remove_dir_all(&folder).unwrap();
}
