//! Records that the AppView's columns are too narrow for.

use super::*;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";
const POST: &str = "app.bsky.feed.post";
const LIKE: &str = "app.bsky.feed.like";

/// The keys of `penstock.records`, as far as they are URIs, and how many are none.
async fn kept(db: &Db) -> (Vec<String>, usize) {
    let rows = db.rows("SELECT key, uri FROM penstock.records ORDER BY key").await;
    let keys = rows.iter().map(|row| row["key"].as_str().unwrap().to_owned());
    let (uris, digests): (Vec<_>, Vec<_>) = keys.partition(|key| key.starts_with("at://"));
    (uris, digests.len())
}

async fn count(db: &Db, table: &str) -> usize {
    db.rows(&format!("SELECT 1 FROM {table}")).await.len()
}

/// A record key so long that no column takes its URI.
fn long(key: &str) -> String {
    format!("{key}{}", "k".repeat(511))
}

/// Letters in no order: an index keeps what repeats itself shorter than it is.
fn letters(seed: u32, len: usize) -> String {
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(char::from(b'a' + ((*state >> 16) % 26) as u8))
    };
    let mut state = seed;
    std::iter::from_fn(|| next(&mut state)).take(len).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_names_that_the_protocol_allows_are_no_dead_letters() {
    let db = Db::new().await;
    let did = format!("did:web:{}", letters(1, 2040));
    let collection = format!("{}.{}", "abcdefghi.".repeat(31), "lexicon");
    assert_eq!((did.len(), collection.len()), (2048, 318));
    let paths = [format!("{}/{}", &collection[1..], "k".repeat(512)), format!("{}/r", &collection[1..])];
    for repo in [A, &did] {
        let record = json!({"$type": &collection[1..], "subject": format!("at://{}", letters(2, 8187))});
        let ops = paths.iter().map(|path| put(path, record.clone())).collect();
        let liked =
            put(&format!("{LIKE}/l"), json!({"subject": {"uri": format!("at://{}", letters(2, 8187)), "cid": "c"}}));
        let follow = put("app.bsky.graph.follow/f", json!({"subject": did}));
        let profile = put("app.bsky.actor.profile/self", json!({"displayName": "n"}));
        let applied = db
            .apply(&[
                live(1, repo, ops),
                live(2, repo, vec![liked, follow, profile, post("p", "t")]),
                identity(3, repo, Some("a.example")),
                account(4, repo, false, Some("deactivated")),
            ])
            .await;
        assert_eq!(applied.rejected, []);
    }
    // Four of the one whose DID fits, and all five of the other; profiles are kept by DID.
    assert_eq!(count(&db, "penstock.records").await, 4 + 5);
    assert_eq!((count(&db, "users").await, count(&db, "penstock.profiles").await), (1, 2));
    assert_eq!(count(&db, "posts").await, 1);
    let stored = db
        .rows("SELECT r.uri, r.did, r.collection, r.record->>'subject' AS subject, r.cid, r.created_at FROM penstock.records AS r
               WHERE key = 'sha256:' || encode(sha256(convert_to(uri, 'UTF8')), 'hex') ORDER BY length(uri)")
        .await;
    assert_eq!(stored.len(), 1 + 5, "what is found by digest: one of the short DID's, all of the long one's");
    assert_eq!(stored[5]["uri"], format!("at://{did}/{}", paths[0]));
    assert_eq!((&stored[5]["did"], &stored[5]["collection"]), (&did.clone().into(), &collection[1..].into()));
    assert_eq!(stored[5]["subject"].as_str().unwrap().len(), 8192);
    assert_eq!(stored[5]["created_at"], "2026-07-04T15:00:00");

    // They go as rows do: one by one, and with their account.
    db.apply(&[live(5, A, vec![delete(&paths[0])]), deleted(6, &did)]).await;
    db.sweep().await;
    assert_eq!(count(&db, "penstock.records").await, 3);
    assert_eq!(count(&db, "penstock.profiles").await, 1);
    // And come back no more.
    let late = live(1, A, vec![put(&paths[0], json!({}))]);
    db.apply(&[late, live(2, &did, vec![post("p", "t")])]).await;
    assert_eq!(count(&db, "penstock.records").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_moves_between_its_table_and_ours_with_all_that_follows_from_it() {
    let p = post_uri(B, "p");
    let far = post_uri(B, &long(""));
    let fits = |order| live(order, A, vec![like("l", &p), repost("r", &p), put(&format!("{POST}/q"), quote(&p))]);
    let not = |order| live(order, A, vec![like("l", &far), repost("r", &far), put(&format!("{POST}/q"), quote(&far))]);
    fn quote(uri: &str) -> Value {
        let of = json!({"uri": uri, "cid": "c"});
        json!({"text": "t", "reply": {"parent": of, "root": of}, "embed": {"$type": "app.bsky.embed.record", "record": of}})
    }
    let gone = |order| {
        live(
            order,
            A,
            vec![delete("app.bsky.feed.like/l"), delete("app.bsky.feed.repost/r"), delete(&format!("{POST}/q"))],
        )
    };
    let states = async |entries: &[Entry]| {
        let db = Db::new().await;
        db.apply(&[live(1, B, vec![post("p", "t")])]).await;
        db.apply_each(entries).await;
        let mut state = db.state().await;
        state.insert("penstock.tombstones", db.rows("SELECT * FROM penstock.tombstones ORDER BY uri").await);
        state.insert("notifications", db.rows("SELECT uri, recipient_did FROM notifications ORDER BY uri").await);
        state.insert("penstock.counts", vec![json!(db.totals().await)]);
        (db, state)
    };
    let (db, alone) = states(&[not(5)]).await;
    assert_eq!(
        kept(&db).await,
        (
            vec![
                format!("at://{A}/{LIKE}/l"),
                format!("at://{A}/{POST}/q"),
                format!("at://{A}/app.bsky.feed.repost/r")
            ],
            0
        )
    );
    assert_eq!((count(&db, "likes").await, count(&db, "reposts").await, count(&db, "quotes").await), (0, 0, 0));
    let row = "SELECT parent_uri, root_uri, embed FROM posts WHERE author_did = 'did:plc:a'";
    assert_eq!(db.rows(row).await, [json!({"parent_uri": null, "root_uri": null, "embed": quote(&far)["embed"]})]);
    let counts = "SELECT like_count + repost_count + reply_count + quote_count AS n FROM post_aggregations WHERE post_uri LIKE '%/p'";
    assert_eq!(db.rows(counts).await, [json!({"n": 0})]);
    let (db, whole) = states(&[fits(5)]).await;
    assert_eq!(db.rows(counts).await, [json!({"n": 4})]);
    assert_eq!(count(&db, "penstock.records").await, 0);
    // Whatever stood before, and in whatever order it came.
    for entries in [vec![fits(4), not(5)], vec![not(5), fits(4)], vec![gone(4), not(5)], vec![not(5), not(3), fits(2)]]
    {
        let (_, state) = states(&entries).await;
        assert!(state == alone, "{entries:?}: {state:#?}");
    }
    for entries in
        [vec![not(4), fits(5)], vec![fits(5), not(4)], vec![fits(3), not(4), fits(5)], vec![gone(4), fits(5)]]
    {
        let (_, state) = states(&entries).await;
        assert!(state == whole, "{entries:?}: {state:#?}");
    }
    let (_, nothing) = states(&[gone(6)]).await;
    for entries in [vec![not(5), gone(6)], vec![gone(6), not(5)], vec![fits(4), not(5), gone(6)]] {
        let (_, state) = states(&entries).await;
        assert!(state == nothing, "{entries:?}: {state:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_like_that_no_longer_fits_leaves_its_place_to_the_one_that_waits() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    db.apply_each(&[live(1, A, vec![like("one", &p)]), live(2, A, vec![like("two", &p)])]).await;
    db.apply(&[live(3, A, vec![like("two", &post_uri(B, &long("")))])]).await;
    assert_eq!(db.rows("SELECT uri FROM likes").await, [json!({"uri": format!("at://{A}/{LIKE}/one")})]);
    assert_eq!(kept(&db).await.0, [format!("at://{A}/{LIKE}/two")]);
    // And takes it again.
    db.apply(&[live(4, A, vec![like("two", &p)])]).await;
    assert_eq!(db.rows("SELECT uri FROM likes").await, [json!({"uri": format!("at://{A}/{LIKE}/two")})]);
    assert_eq!((kept(&db).await.0.len(), count(&db, "penstock.shadowed").await), (0, 1));
}

/// A row that says less than its record may have to wait, come again and come back: what is kept goes along.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_beside_a_row_follows_it() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    let record = json!({"subject": {"uri": p, "cid": "c".repeat(300)}, "createdAt": TEXT});
    let one = live(1, A, vec![put(&format!("{LIKE}/one"), record.clone())]);
    db.apply_each(&[one.clone(), live(2, A, vec![like("two", &p)])]).await;
    let again = Entry { id: id(5), order: id(5), seq: Seq::new(1005), event: one.event.clone() };
    db.apply(&[again]).await;
    let stamps =
        "SELECT s.entry_id, r.entry_id AS kept FROM penstock.shadowed AS s JOIN penstock.records AS r ON r.key = s.uri";
    let last = "0000000000005-000000:1005";
    assert_eq!(db.rows(stamps).await, [json!({"entry_id": last, "kept": last})]);
    db.apply(&[live(6, A, vec![delete(&format!("{LIKE}/two"))])]).await;
    assert_eq!(
        db.rows("SELECT subject_cid, commit_seq FROM likes").await,
        [json!({"subject_cid": null, "commit_seq": last})]
    );
    let said = db.rows("SELECT record FROM penstock.records").await;
    assert_eq!(said, [json!({ "record": record })]);
    // An account that is deleted takes both, whichever the sweep meets first.
    db.apply(&[deleted(7, A)]).await;
    db.sweep().await;
    assert_eq!((count(&db, "likes").await, count(&db, "penstock.records").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_differ_by_a_nul_stay_two_records() {
    let db = Db::new().await;
    let path = |key: &str| format!("com.example.note/{key}");
    let entries = [live(1, A, vec![put(&path("k"), json!({"n": 1})), put(&path("k\0"), json!({"n\0": 2, "n": 3}))])];
    assert_eq!(db.apply(&entries).await.rejected, []);
    assert_eq!((count(&db, "generic_records").await, kept(&db).await.1), (1, 1));
    let said = db.rows("SELECT uri, record FROM penstock.records").await;
    let uri = format!("at://{A}/{}", path("k\u{fffd}"));
    assert_eq!(said, [json!({"uri": uri, "record": {"n": 3, "n\u{fffd}": 2}})]);
    db.apply(&[live(2, A, vec![delete(&path("k\0"))])]).await;
    assert_eq!((count(&db, "generic_records").await, count(&db, "penstock.records").await), (1, 0));
}

/// Every text that a row is found by, as wide as its column: the database takes it, and its indexes do.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_fits_its_column_fits_its_index() {
    // As wide as they come: four bytes each in what is only shown.
    let name: String = (0..400_u32).map(|at| char::from_u32(0x1F300 + at * 37 % 700).unwrap()).collect();
    let did = |seed: u32| format!("did:plc:{}", letters(seed, 247));
    let uri = |seed: u32, owner: &str, collection: &str| {
        let start = format!("at://{owner}/{collection}/");
        format!("{start}{}", letters(seed, 512 - start.len()))
    };
    let (repo, other) = (did(5), did(11));
    let subject = json!({"uri": uri(13, &other, POST), "cid": letters(3, 255)});
    let list = uri(17, &repo, "app.bsky.graph.list");
    let records = [
        (
            POST,
            json!({"text": name, "reply": {"parent": subject, "root": subject}, "embed": {"$type": "app.bsky.embed.record", "record": subject}}),
        ),
        (LIKE, json!({"subject": subject})),
        ("app.bsky.feed.repost", json!({"subject": subject})),
        ("app.bsky.bookmark", json!({"subject": subject})),
        ("app.bsky.graph.follow", json!({"subject": other})),
        ("app.bsky.graph.block", json!({"subject": other})),
        ("app.bsky.graph.list", json!({"name": name, "purpose": letters(1, 64)})),
        ("app.bsky.graph.listitem", json!({"list": list, "subject": other})),
        ("app.bsky.graph.listblock", json!({"subject": list})),
        ("app.bsky.feed.generator", json!({"did": other, "displayName": name})),
        ("app.bsky.graph.starterpack", json!({"name": name, "list": list, "feeds": [list]})),
        ("app.bsky.labeler.service", json!({"policies": {}})),
        ("com.atproto.label.label", json!({"uri": subject["uri"], "src": other, "val": letters(2, 128)})),
        ("app.bsky.graph.verification", json!({"subject": other, "handle": letters(9, 255)})),
        ("app.bsky.feed.postgate", json!({})),
        ("app.bsky.feed.threadgate", json!({"allow": []})),
        (&letters(4, 255), json!({"n": 1})),
    ];
    let db = Db::with(|settings| settings.search_vector = true).await;
    let mut ops = vec![put("app.bsky.actor.profile/self", json!({"displayName": name, "description": name.repeat(9)}))];
    for (collection, record) in &records {
        let rkey = 512 - format!("at://{repo}/{collection}/").len().min(500);
        ops.push(put(&format!("{collection}/{}", letters(6, rkey)), record.clone()));
    }
    let rejected = db.apply(&[live(1, &repo, ops), identity(2, &repo, Some(&letters(8, 255)))]).await.rejected;
    assert_eq!(rejected, []);
    let tables = "SELECT relname AS name FROM pg_class WHERE relname = ANY(ARRAY['posts', 'likes', 'reposts', 'bookmarks', 'follows', 'blocks',
        'lists', 'list_items', 'list_blocks', 'feed_generators', 'starter_packs', 'labeler_services', 'labels', 'verifications', 'post_gates',
        'thread_gates'])";
    let tables = db.rows(tables).await;
    assert_eq!(tables.len(), 16);
    for table in tables {
        let name = table["name"].as_str().unwrap();
        assert_eq!(count(&db, name).await, 1, "{name}");
    }
    assert_eq!(count(&db, "quotes").await, 0, "a quote's own uri is longer");
}
