//! How much JSON a frame may become, told from its outline before anything of it is decoded.
//!
//! A block that many ops share is written for each of them, and some CBOR is far shorter than its JSON: a frame of 36 kB can
//! be 16 MB of data. Who has bounded memory needs to know before.

use crate::limits::Limits;

/// The most bytes of JSON that one byte of CBOR becomes: an empty byte string in a list, `{"$bytes":""},`.
const DENSEST: usize = 14;

/// The most bytes of JSON that any other byte becomes: a control character, `\u0001`, or `false,`. Of short byte strings those
/// of one byte are above it, by four for each of two.
const ESCAPED: usize = 6;

/// The heads of byte strings of no and of one byte, and what they become beyond the others.
const SHORT: [(u8, usize); 2] = [(0x40, DENSEST - ESCAPED), (0x41, 4)];

/// What JSON stands around an op's path and record, and around the ops of a commit, at most.
const AROUND_AN_OP: usize = 192;
const AROUND: usize = 640;

/// The least bytes that an op with a CID takes in a frame.
const LEAST_OP: usize = 48;

/// Up to this many blocks a search from the front is quicker than sorting them.
const UNSORTED: usize = 32;

/// Returns the most bytes of data that a frame becomes when it is decoded, in a small part of the time.
///
/// It is a bound, not a guess: what `decode` writes is never more. Usual frames stay within some kB.
#[must_use]
pub fn most_data(frame: &[u8], limits: &Limits) -> usize {
    let most = limits.data.saturating_add(limits.record.saturating_mul(DENSEST));
    let told = told_by_outline(frame).unwrap_or_else(|| told_by_length(frame.len()));
    told.min(most)
}

/// The bound of a frame whose outline cannot be read: half of it ops, half of it the one block that they share.
fn told_by_length(len: usize) -> usize {
    let half = len / 2 + 1;
    (half / LEAST_OP + 1).saturating_mul(half).saturating_mul(DENSEST).saturating_add(len * ESCAPED + AROUND)
}

fn told_by_outline(frame: &[u8]) -> Option<usize> {
    let mut input = Cbor(frame);
    input.skip()?;
    let (mut blocks, mut ops): (&[u8], Option<Cbor<'_>>) = (&[], None);
    for _ in 0..input.take_head_of(Cbor::MAP)? {
        match input.take_text()? {
            b"blocks" => blocks = input.take_bytes()?,
            b"ops" => {
                ops = Some(input);
                input.skip()?;
            }
            _ => input.skip()?,
        }
    }
    let around = (frame.len() - blocks.len()) * ESCAPED + AROUND;
    let Some(mut ops) = ops else { return Some(around) };
    let count = ops.take_head_of(Cbor::LIST)?;
    let blocks = Blocks::read(blocks)?;
    let mut records = 0_usize;
    let mut last: (&[u8], usize) = (&[], 0);
    for _ in 0..count {
        records = records.saturating_add(AROUND_AN_OP);
        for _ in 0..ops.take_head_of(Cbor::MAP)? {
            if ops.take_text()? == b"cid" {
                let cid = ops.take_cid()?.unwrap_or_default();
                if last.0 != cid {
                    last = (cid, most_json(blocks.find(cid)));
                }
                records = records.saturating_add(last.1);
            } else {
                ops.skip()?;
            }
        }
    }
    Some(around.saturating_add(records))
}

/// Returns the most bytes of JSON that a block becomes.
fn most_json(block: &[u8]) -> usize {
    let more = SHORT.iter().map(|(head, more)| count(block, *head) * more);
    block.len() * ESCAPED + more.sum::<usize>()
}

/// Counts a byte, in pieces of which the count is one too: so sixteen are compared at once, and not one after another.
fn count(block: &[u8], wanted: u8) -> usize {
    let of_piece = |piece: &[u8]| piece.iter().map(|byte| u8::from(*byte == wanted)).sum::<u8>();
    block.chunks(usize::from(u8::MAX)).map(|piece| usize::from(of_piece(piece))).sum()
}

/// The CIDs of a CAR's blocks, and the blocks.
struct Blocks<'a>(Vec<(&'a [u8], &'a [u8])>);

// === impl Blocks ===

impl<'a> Blocks<'a> {
    const CID: usize = 36;

    fn read(mut car: &'a [u8]) -> Option<Self> {
        if car.is_empty() {
            return Some(Self(Vec::new()));
        }
        take_section(&mut car)?;
        let mut blocks = Vec::with_capacity(16);
        while !car.is_empty() {
            let (cid, block) = take_section(&mut car)?.split_at_checked(Self::CID)?;
            blocks.push((cid, block));
        }
        if blocks.len() > UNSORTED {
            blocks.sort_unstable();
        }
        Some(Self(blocks))
    }

    /// Returns a block, nothing where it is not there. Of blocks with one CID and other bytes all but one are refused.
    fn find(&self, cid: &[u8]) -> &'a [u8] {
        let Self(blocks) = self;
        let same = |(held, _): &&(&[u8], &[u8])| *held == cid;
        let found = if blocks.len() > UNSORTED {
            blocks.get(blocks.partition_point(|(held, _)| *held < cid)).filter(same)
        } else {
            blocks.iter().find(same)
        };
        found.map_or(&[], |(_, block)| *block)
    }
}

/// Takes one section of a CAR: its length as a varint, then as many bytes.
fn take_section<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut len = 0_u64;
    for shift in 0..9 {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        len |= u64::from(byte & 0x7F) << (7 * shift);
        if byte & 0x80 == 0 {
            let (section, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            *rest = after;
            return Some(section);
        }
    }
    None
}

/// CBOR that is only looked at from outside.
#[derive(Clone, Copy)]
struct Cbor<'a>(&'a [u8]);

// === impl Cbor ===

impl<'a> Cbor<'a> {
    const BYTES: u8 = 2;
    const TEXT: u8 = 3;
    const LIST: u8 = 4;
    const MAP: u8 = 5;
    const TAG: u8 = 6;

    /// Takes the head of an item: its major type and what it counts.
    fn take_head(&mut self) -> Option<(u8, usize)> {
        let (&first, rest) = self.0.split_first()?;
        let (major, short) = (first >> 5, first & 0x1F);
        let extended = match short {
            0..24 => {
                self.0 = rest;
                return Some((major, usize::from(short)));
            }
            24..28 => 1 << (short - 24),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(extended)?;
        self.0 = rest;
        let value = value.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        // Numbers and floats count nothing.
        let counts = (Self::BYTES..=Self::TAG).contains(&major);
        Some((major, if counts { usize::try_from(value).ok()? } else { 0 }))
    }

    fn take_head_of(&mut self, wanted: u8) -> Option<usize> {
        let (major, count) = self.take_head()?;
        // Each item takes a byte at least, and so no count leads into the void.
        (major == wanted && count <= self.0.len()).then_some(count)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn take_text(&mut self) -> Option<&'a [u8]> {
        let len = self.take_head_of(Self::TEXT)?;
        self.take(len)
    }

    fn take_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.take_head_of(Self::BYTES)?;
        self.take(len)
    }

    /// Takes an op's CID, without the zero before it; none where it has null instead, or something else.
    fn take_cid(&mut self) -> Option<Option<&'a [u8]>> {
        let mut inside = *self;
        self.skip()?;
        let link = inside.take_head_of(Self::TAG).and_then(|_| inside.take_bytes());
        Some(link.and_then(|link| link.strip_prefix(&[0])))
    }

    /// Passes over one item with all that is in it.
    fn skip(&mut self) -> Option<()> {
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            let (major, count) = self.take_head()?;
            match major {
                Self::BYTES | Self::TEXT => drop(self.take(count)?),
                Self::LIST => left = left.checked_add(count)?,
                Self::MAP => left = left.checked_add(count.checked_mul(2)?)?,
                Self::TAG => left += 1,
                _ => {}
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_bounded_by_its_length_and_by_the_limits() {
        let limits = Limits::default();
        for noise in [&[][..], &[0xFF; 40], &[0x9B; 9], &[0x5B; 9], &[0xBF, 0xFF]] {
            assert!(most_data(noise, &limits) < 2_000, "{noise:?}");
        }
        assert_eq!(most_data(&[0xFF; 1_000_000], &limits), 16_000_000 + 14_000_000);
    }
}
