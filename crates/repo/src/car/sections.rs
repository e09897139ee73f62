//! A stream of bytes, cut into the sections of a CAR: the first is its header, each further one a block with its CID.

/// The longest section, in bytes: a record has 1 MB at most, and a node that is larger than four is nobody's honest one.
pub(super) const LONGEST: usize = 4 * 1024 * 1024;

/// The most bytes of a length.
const LENGTH: u32 = 9;

/// What was received and is not a whole section yet.
#[derive(Debug, Default)]
pub(super) struct Sections {
    held: Vec<u8>,
    length: Length,
}

/// How far the length before a section was read.
#[derive(Clone, Copy, Debug)]
enum Length {
    Reading { value: u64, bytes: u32 },
    Read(usize),
}

/// Why bytes are no CAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionFault {
    Malformed(&'static str),
    /// It is longer than a block may be.
    TooLong(u64),
}

// === impl Length ===

impl Default for Length {
    fn default() -> Self {
        Self::Reading { value: 0, bytes: 0 }
    }
}

// === impl Sections ===

impl Sections {
    /// Takes the next piece, and hands each section that is whole to `section`.
    pub(super) fn push<E: From<SectionFault>>(
        &mut self,
        mut piece: &[u8],
        mut section: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !piece.is_empty() {
            match self.length {
                Length::Reading { value, bytes } => {
                    let Some((&byte, rest)) = piece.split_first() else { break };
                    piece = rest;
                    let value = value | u64::from(byte & 0x7F) << (7 * bytes);
                    self.length = match byte {
                        0 if bytes > 0 => return Err(SectionFault::Malformed("a length is not minimal").into()),
                        0..0x80 => Length::Read(bounded(value)?),
                        _ if bytes + 1 == LENGTH => {
                            return Err(SectionFault::Malformed("a length has over nine bytes").into());
                        }
                        _ => Length::Reading { value, bytes: bytes + 1 },
                    };
                    if let Length::Read(0) = self.length {
                        return Err(SectionFault::Malformed("a section is empty").into());
                    }
                }
                Length::Read(len) => {
                    let missing = len - self.held.len();
                    let (now, later) = piece.split_at(missing.min(piece.len()));
                    piece = later;
                    if now.len() < missing {
                        self.held.extend_from_slice(now);
                        continue;
                    }
                    if self.held.is_empty() {
                        section(now)?;
                    } else {
                        self.held.extend_from_slice(now);
                        section(&self.held)?;
                        self.held.clear();
                    }
                    self.length = Length::default();
                }
            }
        }
        Ok(())
    }

    /// Says whether what was received ends with a section.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.length, Length::Reading { bytes: 0, .. })
    }
}

fn bounded(len: u64) -> Result<usize, SectionFault> {
    usize::try_from(len).ok().filter(|len| *len <= LONGEST).ok_or(SectionFault::TooLong(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn cut(pieces: &[&[u8]]) -> Result<(Vec<Vec<u8>>, bool), SectionFault> {
        let (mut sections, mut found) = (Sections::default(), Vec::new());
        for piece in pieces {
            sections.push(piece, |section| {
                found.push(section.to_vec());
                Ok(())
            })?;
        }
        Ok((found, sections.is_whole()))
    }

    fn length(mut len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while len >= 0x80 {
            out.push((len & 0x7F) as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out
    }

    proptest! {
        #[test]
        fn sections_are_found_however_they_arrive(
            sections in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            short in any::<prop::sample::Index>(),
        ) {
            let bytes: Vec<u8> = sections.iter().flat_map(|section| [length(section.len()), section.clone()].concat()).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts.iter().map(|to| { let piece = &bytes[from..*to]; from = *to; piece }).collect();
            prop_assert_eq!(cut(&pieces), Ok((sections.clone(), true)));
            // Wherever it is cut, it is whole only between two sections.
            let short = short.index(bytes.len() + 1);
            let (found, is_whole) = cut(&[&bytes[..short]]).unwrap();
            let end: usize = found.iter().map(|section| length(section.len()).len() + section.len()).sum();
            prop_assert_eq!(is_whole, end == short);
            prop_assert!(sections.starts_with(&found));
        }
    }

    #[test]
    fn lengths_are_minimal_and_bounded() {
        let malformed = |detail| Err(SectionFault::Malformed(detail));
        assert_eq!(cut(&[&[0x80], &[0x00]]), malformed("a length is not minimal"));
        assert_eq!(cut(&[&[0x00]]), malformed("a section is empty"));
        assert_eq!(cut(&[&[0xFF; 9]]), malformed("a length has over nine bytes"));
        assert_eq!(cut(&[&length(LONGEST + 1)]), Err(SectionFault::TooLong(LONGEST as u64 + 1)));
        assert_eq!(cut(&[&length(LONGEST)]), Ok((Vec::new(), false)));
    }
}
