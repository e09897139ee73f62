//! Records one by one, listings of repos, and repos of hosts that have no CAR.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::Source;
use crate::testing::{Asked, Reply, car_of_blocks};

fn has_no_car(asked: &Asked) -> Option<Reply> {
    (asked.method() == "com.atproto.sync.getRepo").then(|| Reply::error(501, "MethodNotImplemented"))
}

#[tokio::test]
async fn a_host_without_cars_has_its_records_listed_in_the_same_order() {
    let world = World::start().await.unwrap();
    let made = mixed(&did(0));
    world.put(made.clone());
    for refusal in
        [Reply::error(501, "MethodNotImplemented"), Reply::error(404, "XRPCNotSupported"), Reply::error(404, "")]
    {
        world.meddle(move |asked| has_no_car(asked).map(|_| refusal.clone()));
        let mut repo = repos(&world, &[]).fetch(&did(0)).await;
        if let Err(error) = &repo {
            // What is no word of XRPC may be about the repo as well as the method.
            assert_eq!(error.word(), "refused", "{error}");
            world.meddle(|asked| {
                (asked.method() == "com.atproto.sync.getRepo").then(|| Reply::Say(404, Vec::new(), "none".into()))
            });
            repo = repos(&world, &[]).fetch(&did(0)).await;
        }
        let mut repo = repo.unwrap();
        assert_eq!((repo.source, repo.signed, &*repo.rev, repo.records), (Source::Records, false, REV, 701));
        assert_same(&all(&mut repo).await.unwrap(), &made);
    }
}

#[tokio::test]
async fn a_repo_that_changes_while_it_is_listed_is_listed_again() {
    let world = World::start().await.unwrap();
    world.put(mixed(&did(0)));
    let asked_for = Arc::new(AtomicUsize::new(0));
    let changes = Arc::new(AtomicUsize::new(1));
    let (count, left) = (Arc::clone(&asked_for), Arc::clone(&changes));
    world.meddle(move |asked| {
        if asked.method() == "com.atproto.sync.getLatestCommit" {
            // The second one of each listing says another rev, as often as it is to change.
            let is_second = count.fetch_add(1, Ordering::SeqCst) % 2 == 1;
            if is_second && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                let cid = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a";
                return Some(Reply::json(200, &json!({"rev": "3kaaaaaaaaaab", "cid": cid})));
            }
        }
        has_no_car(asked)
    });
    let repos = repos(&world, &[]);
    assert_eq!(repos.fetch(&did(0)).await.unwrap().records, 701);
    assert_eq!(asked_for.load(Ordering::SeqCst), 4);
    changes.store(usize::MAX, Ordering::SeqCst);
    let error = repos.fetch(&did(0)).await.unwrap_err();
    assert!(matches!(error, RepoError::Changed { .. }) && !error.is_final(), "{error}");
}

#[tokio::test]
async fn a_listing_that_is_not_what_was_asked_for_is_refused() {
    let world = World::start().await.unwrap();
    world.put(mixed(&did(0)));
    let record = |path: &str| json!({"uri": format!("at://{}/{path}", did(0)), "value": {}, "cid": "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"});
    let other = json!({"uri": format!("at://{}/app.bsky.actor.profile/self", did(1)), "value": {}, "cid": record("x/y")["cid"]});
    for page in [
        // Backwards, twice, of another collection, of another repo, without a cid that is one.
        json!([record("app.bsky.actor.profile/b"), record("app.bsky.actor.profile/a")]),
        json!([record("app.bsky.actor.profile/a"), record("app.bsky.actor.profile/a")]),
        json!([record("app.bsky.feed.post/a")]),
        json!([other]),
        json!([{"uri": record("app.bsky.actor.profile/a")["uri"], "cid": "baf", "value": {}}]),
        json!([record("app.bsky.actor.profile/a b")]),
        json!("nothing"),
    ] {
        world.meddle(move |asked| {
            let is_listing = asked.method() == "com.atproto.repo.listRecords";
            is_listing
                .then(|| Reply::json(200, &json!({"records": page, "cursor": "again"})))
                .or_else(|| has_no_car(asked))
        });
        let error = repos(&world, &[]).fetch(&did(0)).await.unwrap_err();
        assert_eq!(error.word(), "refused", "{error}");
    }
}

#[tokio::test]
async fn what_a_host_has_now_is_asked_for_without_the_repo() {
    let world = World::start().await.unwrap();
    let made = mixed(&did(0));
    world.put(made.clone());
    let repos = repos(&world, &[]);
    let latest = repos.latest(&did(0)).await.unwrap();
    assert_eq!((&*latest.rev, latest.cid.to_string()), (REV, made.blocks().commit.to_string()));
    let record = repos.record(&did(0), "app.bsky.feed.like/l7").await.unwrap().unwrap();
    assert_eq!(*record.cid, *made.cid("app.bsky.feed.like/l7").unwrap().to_string());
    assert!(record.record.get().contains("app.bsky.feed.post/7"));
    assert!(repos.record(&did(0), "app.bsky.feed.like/none").await.unwrap().is_none());
    assert_eq!(repos.latest(&did(1)).await.unwrap_err().word(), "identity");
    world.meddle(|asked| {
        (asked.method() == "com.atproto.sync.getLatestCommit")
            .then(|| Reply::json(200, &json!({"rev": "x", "cid": "y"})))
    });
    assert_eq!(repos.latest(&did(0)).await.unwrap_err().word(), "refused");
}

/// The signed commit without the repo: what is not this account's, or not what its CID says, is refused.
#[tokio::test]
async fn the_signed_commit_comes_without_the_repo() {
    let world = World::start().await.unwrap();
    let made = mixed(&did(0));
    world.put(made.clone());
    let repos = repos(&world, &[]);
    let head = repos.head(&did(0)).await.unwrap();
    assert_eq!((&*head.rev, head.root), (REV, *made.blocks().tree.digest()));
    assert_eq!(world.hits("com.atproto.sync.getRepo", &did(0)), 0);
    let mut foreign = made.clone();
    foreign.account.rotations = 7;
    let (forged, block) = foreign.commit(&made.blocks().tree);
    let (other, other_block) = mixed(&did(1)).commit(&made.blocks().tree);
    let (commit, own) = made.commit(&made.blocks().tree);
    for (cid, blocks, word) in [
        (forged, vec![(forged, block)], "signature"),
        (other, vec![(other, other_block.clone())], "commit"),
        (commit, vec![(commit, other_block)], "hash"),
        (commit, vec![], "car"),
        (other, vec![(commit, own)], "car"),
    ] {
        world.meddle(move |asked| match asked.method() {
            "com.atproto.sync.getLatestCommit" => Some(Reply::json(200, &json!({"rev": REV, "cid": cid.to_string()}))),
            "com.atproto.sync.getBlocks" => Some(Reply::bytes(car_of_blocks(&blocks))),
            _ => None,
        });
        assert_eq!(repos.head(&did(0)).await.unwrap_err().word(), word);
    }
    world.meddle(|asked| {
        (asked.method() == "com.atproto.sync.getBlocks").then(|| Reply::error(501, "MethodNotImplemented"))
    });
    assert_eq!(repos.head(&did(0)).await.unwrap_err().word(), "unsupported");
}

#[tokio::test]
async fn a_relay_lists_its_repos_page_by_page() {
    let world = World::start().await.unwrap();
    for n in 0..2_300 {
        let mut repo = MadeRepo::new(&did(n), REV);
        if n % 100 == 7 {
            repo.put("com.example.rare/one", &json!({}));
        }
        world.put(repo);
    }
    let repos = repos(&world, &[]);
    let address = world.server.address;
    let list = async |relay: String, collection: Option<&str>| {
        let (mut found, mut cursor, mut pages) = (Vec::new(), None::<Box<str>>, 0);
        loop {
            let page = repos.list(&relay, collection, cursor.as_deref()).await.unwrap();
            found.extend(page.repos);
            pages += 1;
            match page.cursor {
                Some(next) => cursor = Some(next),
                None => return (found, pages),
            }
        }
    };
    for relay in [format!("http://{address}"), format!("ws://{address}/xrpc/com.atproto.sync.subscribeRepos")] {
        let (found, pages) = list(relay, None).await;
        assert_eq!((found.len(), pages), (2_300, 3));
        assert!(found.iter().all(|repo| repo.active && repo.rev.as_deref() == Some(REV)));
        let dids: BTreeSet<String> = found.into_iter().map(|repo| repo.did.into()).collect();
        assert_eq!(dids, (0..2_300).map(did).collect());
    }
    let (found, _) = list(format!("http://{address}"), Some("com.example.rare")).await;
    assert_eq!(found.len(), 23);
    // In a private network that no setting names: only the relay that is read may be there.
    let fenced = [("identity.allowedNetworks", "10.0.0.0/8")];
    let refused = self::repos(&world, &fenced).list(&format!("http://{address}"), None, None).await.unwrap_err();
    assert_eq!(refused.word(), "refused");
    let relay = format!("ws://{address}");
    let named = [("identity.allowedNetworks", "10.0.0.0/8"), ("relay.urls", relay.as_str())];
    assert!(self::repos(&world, &named).list(&relay, None, None).await.is_ok());
    for bad in ["", "nothing", "ftp://example.com", "https://"] {
        assert_eq!(repos.list(bad, None, None).await.unwrap_err().word(), "refused", "{bad}");
    }
    // One that comes to no end is left.
    world.meddle(|asked| {
        (asked.method() == "com.atproto.sync.listRepos")
            .then(|| Reply::json(200, &json!({"repos": [], "cursor": "same"})))
    });
    assert_eq!(list(format!("http://{address}"), None).await.1, 2);
}
