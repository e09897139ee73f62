//! Finds an event's number in the beginning of its frame, for frames whose rest never arrived.

/// How deeply skipped values may nest.
const DEPTH: u32 = 64;

/// Returns the number, if the beginning reaches that far.
pub(crate) fn seq(frame: &[u8]) -> Option<u64> {
    let mut rest = Rest(frame);
    rest.skip(DEPTH)?;
    let (MAP, entries) = rest.head()? else { return None };
    for _ in 0..entries {
        if rest.text()? == b"seq" {
            return match rest.head()? {
                (UNSIGNED, seq) => Some(seq),
                _ => None,
            };
        }
        rest.skip(DEPTH)?;
    }
    None
}

// The major types of CBOR.
const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// The bytes still to be read.
struct Rest<'a>(&'a [u8]);

// === impl Rest ===

impl<'a> Rest<'a> {
    /// Reads an item's major type and its argument; this protocol has no indefinite lengths.
    fn head(&mut self) -> Option<(u8, u64)> {
        let first = self.take(1)?.first()?;
        let wide = match first & 0x1f {
            small @ 0..24 => return Some((first >> 5, u64::from(small))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return None,
        };
        let value = self.take(wide)?.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte));
        Some((first >> 5, value))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        match self.head()? {
            (TEXT, len) => self.take(usize::try_from(len).ok()?),
            _ => None,
        }
    }

    /// Skips one item.
    fn skip(&mut self, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let (major, argument) = self.head()?;
        let items = match major {
            BYTES | TEXT => {
                self.take(usize::try_from(argument).ok()?)?;
                0
            }
            ARRAY => argument,
            MAP => argument.checked_mul(2)?,
            TAG => 1,
            _ => 0,
        };
        for _ in 0..items {
            self.skip(depth)?;
        }
        Some(())
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_once_it_came() {
        let frames: Vec<_> = penstock_replay::frames(&penstock_replay::Settings {
            total: Some(200),
            ..penstock_replay::Settings::default()
        })
        .unwrap()
        .collect();
        for (frame, expected) in frames.iter().zip(1..) {
            assert_eq!(seq(frame), Some(expected));
            // However much of it came: that number or none.
            let found = (0..frame.len()).map(|len| seq(&frame[..len]));
            let first = found.clone().position(|found| found.is_some()).unwrap();
            // The number itself may be cut, but not to another one.
            assert!(found.skip(first).all(|found| found == Some(expected)));
        }
    }

    #[test]
    fn whatever_comes_is_passed_over_within_its_length() {
        assert_eq!(seq(b""), None);
        assert_eq!(seq(&[0xff; 64]), None);
        assert_eq!(seq(&[0x81; 100_000]), None, "too deep");
        assert_eq!(seq(&[0xa0, 0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(seq(&[0x9b, 0, 0, 0, 0xff, 0, 0, 0, 0, 1, 2, 3]), None);
    }
}
