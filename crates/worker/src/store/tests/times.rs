//! When records say they were made: what a row says of it, also of one that was hidden and promoted again.

use std::path::Path;

use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::*;

const A: &str = "did:plc:a";

/// When the commits of these tests were made.
const EVENT: &str = "2026-07-04T15:00:00";

#[tokio::test(flavor = "multi_thread")]
async fn a_repost_from_the_future_keeps_its_date_and_its_place_in_feeds_while_it_waits() {
    let p = post_uri("did:plc:b", "p");
    let future = |rkey: &str| {
        let record = json!({"subject": {"uri": p, "cid": "c"}, "createdAt": "2999-01-01T00:00:00Z"});
        live(1, A, vec![put(&format!("app.bsky.feed.repost/{rkey}"), record)])
    };
    let shown = "SELECT created_at, sort_at FROM feed_items";
    let once = Db::new().await;
    once.apply(&[future("one")]).await;
    assert_eq!(once.rows(shown).await, [json!({"created_at": "2999-01-01T00:00:00", "sort_at": EVENT})]);
    // It stood and was demoted, or never stood.
    for entries in [
        vec![vec![future("one")], vec![live(2, A, vec![repost("two", &p)])]],
        vec![vec![live(2, A, vec![repost("two", &p)])], vec![future("one")]],
    ] {
        let db = Db::new().await;
        for batch in entries {
            db.apply(&batch).await;
        }
        assert_eq!(db.rows("SELECT uri FROM penstock.shadowed").await.len(), 1);
        db.apply(&[live(3, A, vec![delete("app.bsky.feed.repost/two")])]).await;
        assert_eq!(db.rows(shown).await, once.rows(shown).await);
    }
}

/// Texts that are no valid datetimes and yet say a time, and what they say.
const UNDERSTOOD: [(&str, &str); 16] = [
    ("1985-04-12T23:20:50.123z", "1985-04-12T23:20:50.123"),
    ("1985-04-12t23:20:50.123Z", "1985-04-12T23:20:50.123"),
    ("1985-04-12 23:20:50.123Z", "1985-04-12T23:20:50.123"),
    ("1985-04-12T23:20:50.123-00:00", "1985-04-12T23:20:50.123"),
    ("1985-04-12T23:20:50.123", "1985-04-12T23:20:50.123"),
    ("1985-04-12T23:20:50", "1985-04-12T23:20:50"),
    ("1985-04-12T23:20:50.123+0000", "1985-04-12T23:20:50.123"),
    ("1985-04-12T23:20:50.123+00", "1985-04-12T23:20:50.123"),
    ("1985-04-12T23:20Z", "1985-04-12T23:20:00"),
    ("1985-04-12", "1985-04-12T00:00:00"),
    ("+001985-04-12T23:20:50.123Z", "1985-04-12T23:20:50.123"),
    ("-000001-12-31T23:00:00.000Z", "0002-12-31T23:00:00 BC"),
    ("0000-01-01T00:00:00+01:00", "0002-12-31T23:00:00 BC"),
    ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00"),
    ("+294276-12-31T23:59:59.999999Z", "294276-12-31T23:59:59.999999"),
    ("-004713-11-24T00:00:00Z", "4714-11-24T00:00:00 BC"),
];

/// Texts of which nothing is understood: the event's time stands in.
const NOT_UNDERSTOOD: [&str; 6] =
    ["", "yesterday", "+294277-01-01T00:00:00Z", "-004713-11-23T00:00:00Z", "2026-02-30T00:00:00Z", "2026-07-04T"];

/// A valid datetime taken apart: year, month, day, hour, minute, second, millionths, and minutes east of UTC.
type Parts = [i64; 8];

/// Takes a valid datetime apart, by the places of its parts.
fn parts(text: &str) -> Parts {
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    let zone = text.rfind(['Z', '+', '-']).unwrap();
    let fraction = text[19..zone].trim_start_matches('.');
    let offset = match &text[zone..] {
        "Z" => 0,
        offset => {
            let minutes = offset[1..3].parse::<i64>().unwrap() * 60 + offset[4..6].parse::<i64>().unwrap();
            if offset.starts_with('-') { -minutes } else { minutes }
        }
    };
    let millionths = format!("{fraction:0<6.6}").parse().unwrap();
    let [year, month, day] = [number(0, 4), number(5, 7), number(8, 10)];
    [year, month, day, number(11, 13), number(14, 16), number(17, 19), millionths, offset]
}

/// Makes up valid datetimes and their parts: any year of four digits, fractions of up to twenty, any offset.
fn made_up(count: usize) -> Vec<(String, Parts)> {
    let year = proptest::prop_oneof![3 => 0..=9999_i64, 1 => 0..=2_i64, 1 => 9998..=9999_i64];
    let date = (year, 1..=12_i64, 1..=28_i64);
    let time = (0..24_i64, 0..60_i64, 0..60_i64);
    let one = (date, time, "([.][0-9]{1,20})?", -23 * 60..24 * 60_i64, proptest::bool::ANY);
    let mut runner = TestRunner::deterministic();
    let made = vec(one, count).new_tree(&mut runner).unwrap().current();
    let text = |((year, month, day), (hour, minute, second), fraction, east, is_utc): (_, _, String, i64, bool)| {
        let (sign, minutes) = if east < 0 { ('-', -east) } else { ('+', east) };
        let zone = if is_utc { "Z".to_owned() } else { format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60) };
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}");
        let parts = parts(&text);
        (text, parts)
    };
    made.into_iter().map(text).collect()
}

/// The lines of one of the protocol's own lists, where they are at hand.
fn listed(name: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/interop/syntax");
    let list = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// What PostgreSQL itself makes of the parts, each as a row shows it.
async fn right(db: &Db, parts: &[Parts]) -> Vec<Value> {
    let column = |at: usize| parts.iter().map(|parts| parts[at]).collect::<Vec<_>>();
    let sql = "\
        SELECT to_jsonb(make_timestamp(y::int - (y <= 0)::int, m::int, d::int, h::int, i::int, 0)
            + make_interval(secs => s) + f * interval '1 microsecond' - make_interval(mins => e::int))
          FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::bigint[]) WITH ORDINALITY AS u (y, m, d, h, i, s, f, e, at) ORDER BY at";
    let mut query = sqlx::query_scalar(sql);
    for at in 0..8 {
        query = query.bind(column(at));
    }
    query.fetch_all(db.store.pool()).await.unwrap()
}

/// Every datetime of the protocol's lists and some hundred others, each in the only repost of a repo, which stands, is
/// hidden by another of the same post, or never stood, and is promoted when that one goes.
#[tokio::test(flavor = "multi_thread")]
async fn any_datetime_is_what_it_says_or_its_events_and_comes_back_as_it_was() {
    let db = Db::new().await;
    let mut valid = made_up(400);
    valid.extend(listed("datetime_syntax_valid.txt").into_iter().map(|text| (text.clone(), parts(&text))));
    valid.push(("9999-12-31T23:59:59.999Z".to_owned(), parts("9999-12-31T23:59:59.999Z")));
    let (texts, parts): (Vec<_>, Vec<_>) = valid.into_iter().unzip();
    let mut cases: Vec<(String, Value)> = texts.into_iter().zip(right(&db, &parts).await).collect();
    cases.extend(UNDERSTOOD.map(|(text, shown)| (text.to_owned(), shown.into())));
    cases.extend(NOT_UNDERSTOOD.map(|text| (text.to_owned(), EVENT.into())));
    for text in listed("datetime_syntax_invalid.txt").into_iter().chain(listed("datetime_parse_invalid.txt")) {
        let said = UNDERSTOOD.iter().find(|(understood, _)| *understood == text);
        let shown = said.map_or(EVENT, |(_, shown)| shown);
        cases.push((text, shown.into()));
    }

    let p = post_uri("did:plc:b", "p");
    let repo = |at: usize| format!("did:plc:r{at:04}");
    let entries = |order: u64, op: &dyn Fn(usize) -> Op| {
        (0..cases.len()).map(|at| live(order, &repo(at), vec![op(at)])).collect::<Vec<_>>()
    };
    let dated = |at: usize| {
        let record = json!({"subject": {"uri": p, "cid": "c"}, "createdAt": cases[at].0});
        put("app.bsky.feed.repost/one", record)
    };
    let rows = async || {
        let rows = "SELECT to_jsonb(r) - 'indexed_at' AS row, f.created_at, f.sort_at, f.cid, f.originator_did,
            r.created_at = least(r.created_at, timestamp '2026-07-04 15:00') AS earlier
            FROM reposts AS r JOIN feed_items AS f USING (uri) ORDER BY user_did";
        db.rows(rows).await
    };
    db.apply(&entries(1, &dated)).await;
    let stood = rows().await;
    assert_eq!(stood.len(), cases.len());
    for ((text, shown), row) in cases.iter().zip(&stood) {
        assert_eq!(&row["row"]["created_at"], shown, "{text:?}");
        assert_eq!(&row["created_at"], shown, "{text:?}");
        let sorted = if row["earlier"] == true { shown.clone() } else { EVENT.into() };
        assert_eq!(row["sort_at"], sorted, "{text:?}");
    }
    // Hidden while it stands.
    db.apply(&entries(2, &|_| repost("two", &p))).await;
    assert_eq!(db.rows("SELECT uri FROM penstock.shadowed").await.len(), cases.len());
    db.apply(&entries(3, &|_| delete("app.bsky.feed.repost/two"))).await;
    assert!(rows().await == stood, "what stood comes back as it was");
    // Hidden before it ever stood.
    db.execute("DELETE FROM reposts; DELETE FROM feed_items; DELETE FROM penstock.tombstones").await;
    db.apply(&entries(2, &|_| repost("two", &p))).await;
    db.apply(&entries(1, &dated)).await;
    assert_eq!(db.rows("SELECT uri FROM penstock.shadowed").await.len(), cases.len());
    db.apply(&entries(3, &|_| delete("app.bsky.feed.repost/two"))).await;
    assert!(rows().await == stood, "what never stood comes as it would have");
}
