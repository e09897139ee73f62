//! A made-up export, and what must come of it by the plainest reading there is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use penstock_wire::Key;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

pub(crate) const P256: &str = "zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo";
pub(crate) const K256: &str = "zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc";
const OTHER: &str = "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";

/// What the table says of an account: key, host, handle, when, and whether it is gone.
pub(crate) type Row = (Option<Vec<u8>>, Option<String>, Option<String>, i64, bool);

/// An export, and the rows that it must give.
pub(crate) struct Made {
    pub(crate) lines: Vec<String>,
    pub(crate) rows: BTreeMap<String, Row>,
    pub(crate) nullified: u64,
}

pub(crate) fn did(number: usize) -> String {
    let letter = |n: usize| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[n % 32]);
    let letters: String = (0..24).map(|place| letter(number >> (5 * (place % 6)) ^ place)).collect();
    format!("did:plc:{letters}")
}

pub(crate) fn time(milli: i64) -> String {
    let time = Timestamp::from_millisecond(milli).unwrap().to_string();
    // As JavaScript writes it.
    let (seconds, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), ""));
    format!("{seconds}.{fraction:0<3}Z")
}

pub(crate) fn line(did: &str, operation: &str, nullified: bool, milli: i64) -> String {
    let created = time(milli);
    format!(
        r#"{{"did":"{did}","operation":{operation},"cid":"bafyreigp6shzy6dlcxuowwoxz7u5nemdrkad2my5zwzpwilcnhih7bw6zm","nullified":{nullified},"createdAt":"{created}"}}"#
    )
}

pub(crate) fn operation(key: &str, host: &str, handle: &str) -> String {
    format!(
        r#"{{"sig":"9NuYV7AqwHVTc0YuWzNV3CJafsSZWH7qCxHRUIP2xWlB-YexXC1OaYAnUayiCXLVzRQ8WBXIqF-SvZdNalwcjA","prev":null,"type":"plc_operation","services":{{"atproto_pds":{{"type":"AtprotoPersonalDataServer","endpoint":"{host}"}}}},"alsoKnownAs":["at://{handle}"],"rotationKeys":["did:key:zQ3shhCGUqDKjStzuDxPkTxN6ujddP4RkEKJJouJGRRkaLGbg","did:key:zQ3shpKnbdPx3g3CmPf5cRVTPe1HtSwVn5ish3wSnDPQCbLJK"],"verificationMethods":{{"atproto":"did:key:{key}"}}}}"#
    )
}

/// Makes operations of so many accounts, in any order.
pub(crate) fn make(accounts: usize, seed: u64) -> Made {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut lines, mut rows, mut nullified) = (Vec::new(), BTreeMap::new(), 0);
    for number in 0..accounts {
        let did = did(number);
        let mut milli = 1_600_000_000_000 + random.random_range(0..100_000_000_000);
        for nth in 0..random.random_range(1..5) {
            milli += random.random_range(1..100_000_000);
            let (handle, host) = (format!("u{number}-{nth}.example.com"), format!("https://h{nth}.example.com"));
            let (key, text) = match random.random_range(0..5) {
                0 => (None, OTHER),
                1 | 2 => (Some(P256), P256),
                _ => (Some(K256), K256),
            };
            let bytes = key.map(|key| Key::from_multikey(key).unwrap().to_bytes().to_vec());
            let (operation, row): (String, Row) = match random.random_range(0..8) {
                0 => (
                    r#"{"sig":"x","prev":"bafyrei","type":"plc_tombstone"}"#.to_owned(),
                    (None, None, None, milli * 1000, true),
                ),
                1 => (
                    format!(
                        r#"{{"sig":"x","prev":null,"type":"create","handle":"{handle}","service":"{host}","signingKey":"did:key:{text}","recoveryKey":"did:key:{K256}"}}"#
                    ),
                    (bytes, Some(host), Some(handle), milli * 1000, false),
                ),
                _ => (operation(text, &host, &handle), (bytes, Some(host), Some(handle), milli * 1000, false)),
            };
            // A later operation made it void.
            let void = random.random_range(0..6) == 0;
            nullified += u64::from(void);
            if !void {
                rows.insert(did.clone(), row);
            }
            lines.push(line(&did, &operation, void, milli));
        }
    }
    lines.shuffle(&mut random);
    Made { lines, rows, nullified }
}

pub(crate) fn text(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").unwrap();
        text
    })
}
