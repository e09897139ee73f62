//! Revisions as numbers, and the time that stands in them (<https://atproto.com/specs/tid>).

use jiff::Timestamp;

use crate::syntax;

/// The digits of a TID, in their order.
const DIGITS: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";

/// How far the clocks of servers may be apart, in microseconds: the specification proposes five minutes.
const ALLOWANCE: i64 = 5 * 60 * 1_000_000;

/// Returns a revision as a number, in the same order; none where the text is no TID.
#[must_use]
pub fn rev_number(rev: &str) -> Option<u64> {
    if !syntax::is_tid(rev) {
        return None;
    }
    Some(rev.bytes().fold(0, |number, byte| {
        let digit = if byte < b'a' { byte - b'2' } else { byte - b'a' + 6 };
        number << 5 | u64::from(digit)
    }))
}

/// Returns the text of a revision.
#[must_use]
pub fn rev_text(rev: u64) -> String {
    let digit = |index: u32| DIGITS.get((rev >> (60 - 5 * index) & 31) as usize).copied().map_or('2', char::from);
    (0..13).map(digit).collect()
}

/// Says whether a revision is of a time to come, five minutes allowed for clocks that are apart.
#[must_use]
pub fn is_future(rev: u64, now: Timestamp) -> bool {
    // The upper 53 of 63 bits are microseconds.
    i64::try_from(rev >> 10).is_ok_and(|micros| micros > now.as_microsecond().saturating_add(ALLOWANCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_numbers_in_their_order() {
        let revs =
            ["2222222222222", "2222222222223", "222222222222z", "3jzfcijpj2z2a", "3kaaaaaaaaaaa", "jzzzzzzzzzzzz"];
        let numbers: Vec<u64> = revs.iter().map(|rev| rev_number(rev).unwrap()).collect();
        assert!(numbers.is_sorted());
        assert_eq!((numbers[0], numbers[1], numbers[5]), (0, 1, u64::MAX));
        for (rev, number) in revs.iter().zip(numbers) {
            assert_eq!(rev_text(number), *rev);
        }
        for none in ["", "222222222222", "22222222222222", "k222222222222", "222222222222A", "2222222222221"] {
            assert_eq!(rev_number(none), None, "{none}");
        }
    }

    #[test]
    fn a_revision_is_of_the_future_beyond_five_minutes() {
        let now: Timestamp = "2026-07-04T14:38:07Z".parse().unwrap();
        let at = |seconds: i64, more: u64| ((now.as_microsecond() + seconds * 1_000_000) as u64) << 10 | more;
        assert!(!is_future(at(-1, 0), now) && !is_future(at(300, 1023), now));
        assert!(is_future(at(301, 0), now) && is_future((1 << 63) - 1, now));
    }
}
