//! CBOR read head by head, for what stands outside of hashed blocks and for records nested more deeply than serde follows.
//!
//! Lenient where the meaning is plain: heads of any width, lists and maps of indefinite length. Nothing here recurses, and
//! nothing is reserved for a length that is only claimed.

/// How many lists and maps of indefinite length may be inside each other where they are passed over.
const OPEN: usize = 256;

/// CBOR that is cut off or is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

const CUT: Malformed = Malformed("it is cut off");

/// The major types (RFC 8949, section 3.1).
pub(crate) mod major {
    pub(crate) const UNSIGNED: u8 = 0;
    pub(crate) const NEGATIVE: u8 = 1;
    pub(crate) const BYTES: u8 = 2;
    pub(crate) const TEXT: u8 = 3;
    pub(crate) const LIST: u8 = 4;
    pub(crate) const MAP: u8 = 5;
    pub(crate) const TAG: u8 = 6;
    pub(crate) const SIMPLE: u8 = 7;
}

/// How an item begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The major type.
    pub(crate) major: u8,
    /// The lower five bits of the first byte.
    pub(crate) info: u8,
    /// The number that they stand for or that follows; 0 where the length is indefinite.
    pub(crate) value: u64,
}

/// What is left to be read.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

/// The items of a list, or the keys and values of a map.
#[derive(Debug)]
pub(crate) struct Items<'a> {
    input: Input<'a>,
    /// How many are left; none where a break ends them.
    left: Option<u64>,
}

// === impl Head ===

impl Head {
    /// The first byte that stands for a length of its own.
    const INDEFINITE: u8 = 31;

    /// Says whether the length is indefinite; of a simple value: whether it is the break that ends such a one.
    pub(crate) fn is_indefinite(self) -> bool {
        self.info == Self::INDEFINITE
    }

    fn is_break(self) -> bool {
        self.major == major::SIMPLE && self.is_indefinite()
    }

    /// Says whether the number is written as short as it can be.
    pub(crate) fn is_minimal(self) -> bool {
        match self.info {
            0..=23 => true,
            24 => self.value > 23,
            25 => self.value > 0xFF,
            26 => self.value > 0xFFFF,
            27 => self.value > 0xFFFF_FFFF,
            _ => false,
        }
    }
}

// === impl Input ===

impl<'a> Input<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// Says whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next head.
    pub(crate) fn head(&mut self) -> Result<Head, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(CUT)?;
        self.rest = rest;
        let (major, info) = (first >> 5, first & 31);
        let value = match info {
            0..=23 => u64::from(info),
            24..=27 => {
                let bytes = self.take(1 << (info - 24))?;
                bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
            Head::INDEFINITE if matches!(major, major::BYTES..=major::MAP | major::SIMPLE) => 0,
            _ => return Err(Malformed("a head is reserved")),
        };
        if major == major::SIMPLE && info == 24 && value < 32 {
            return Err(Malformed("a simple value has two bytes"));
        }
        Ok(Head { major, info, value })
    }

    /// Takes as many bytes.
    pub(crate) fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len)).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes one item, whatever is in it, and returns its bytes.
    pub(crate) fn item(&mut self) -> Result<&'a [u8], Malformed> {
        let whole = self.rest;
        self.pass()?;
        Ok(whole.get(..whole.len() - self.rest.len()).unwrap_or_default())
    }

    /// Passes over one item.
    fn pass(&mut self) -> Result<(), Malformed> {
        // How many are to come; none where a break ends them. What is inside a list of known length counts beside what is
        // behind it, so that only the others need a place each.
        let mut left = Some(1);
        let mut around: Vec<Option<u64>> = Vec::new();
        loop {
            if left == Some(0) {
                match around.pop() {
                    Some(outer) => left = outer,
                    None => return Ok(()),
                }
                continue;
            }
            let head = self.head()?;
            if head.is_break() {
                left = match (left, around.pop()) {
                    (None, Some(outer)) => outer,
                    _ => return Err(Malformed("a break ends nothing")),
                };
                continue;
            }
            left = left.map(|left| left - 1);
            let inside = match head.major {
                major::BYTES | major::TEXT if head.is_indefinite() => {
                    self.pass_pieces(head.major)?;
                    continue;
                }
                major::BYTES | major::TEXT => {
                    self.take(head.value)?;
                    continue;
                }
                major::LIST => head.value,
                major::MAP => head.value.checked_mul(2).ok_or(CUT)?,
                major::TAG => 1,
                _ => continue,
            };
            match left {
                Some(left_now) if !head.is_indefinite() => left = Some(left_now.checked_add(inside).ok_or(CUT)?),
                _ if around.len() == OPEN => return Err(Malformed("it is nested too deeply")),
                outer => {
                    around.push(outer);
                    left = if head.is_indefinite() { None } else { Some(inside) };
                }
            }
        }
    }

    fn pass_pieces(&mut self, major: u8) -> Result<(), Malformed> {
        loop {
            let piece = self.head()?;
            if piece.is_break() {
                return Ok(());
            }
            if piece.major != major || piece.is_indefinite() {
                return Err(Malformed("a piece is of another kind"));
            }
            self.take(piece.value)?;
        }
    }

    /// Opens a list or map; none where the next item is something else.
    pub(crate) fn open(mut self, major: u8) -> Option<Items<'a>> {
        let head = self.head().ok().filter(|head| head.major == major)?;
        let each = if major == major::MAP { 2 } else { 1 };
        let left = if head.is_indefinite() { None } else { Some(head.value.checked_mul(each)?) };
        Some(Items { input: self, left })
    }
}

// === impl Items ===

impl<'a> Items<'a> {
    /// Takes the next item; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match &mut self.left {
            Some(0) => return Ok(None),
            Some(left) => *left -= 1,
            None if self.input.clone().head()?.is_break() => {
                self.input.head()?;
                self.left = Some(0);
                return Ok(None);
            }
            None => {}
        }
        self.input.item().map(Some)
    }

    /// Returns what is behind the last one, once all are taken.
    pub(crate) fn rest(self) -> Input<'a> {
        self.input
    }
}

/// What a map says under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    /// Nothing.
    Absent,
    /// This item.
    Once(&'a [u8]),
    /// Two things: which of them is meant nobody knows.
    Twice,
}

// === impl Field ===

impl<'a> Field<'a> {
    /// Returns the item, if there is exactly one.
    pub(crate) fn once(self) -> Option<&'a [u8]> {
        match self {
            Self::Once(item) => Some(item),
            Self::Absent | Self::Twice => None,
        }
    }
}

/// Takes a map and finds what it says under these keys, in whatever order they stand; others are passed over.
pub(crate) fn fields<'a, const N: usize>(input: &mut Input<'a>, names: [&str; N]) -> Result<[Field<'a>; N], Malformed> {
    let mut found = [Field::Absent; N];
    let mut items = input.clone().open(major::MAP).ok_or(Malformed("it is no map"))?;
    while let Some(key) = items.next()? {
        let value = items.next()?.ok_or(Malformed("a key has no value"))?;
        let place = text(key).and_then(|key| names.iter().position(|name| *name == key));
        if let Some(field) = place.and_then(|place| found.get_mut(place)) {
            *field = if *field == Field::Absent { Field::Once(value) } else { Field::Twice };
        }
    }
    *input = items.rest();
    Ok(found)
}

/// Reads a text in one piece.
pub(crate) fn text(item: &[u8]) -> Option<&str> {
    str::from_utf8(string(item, major::TEXT)?).ok()
}

/// Reads bytes in one piece.
pub(crate) fn bytes(item: &[u8]) -> Option<&[u8]> {
    string(item, major::BYTES)
}

fn string(item: &[u8], major: u8) -> Option<&[u8]> {
    let mut input = Input::new(item);
    let head = input.head().ok().filter(|head| head.major == major && !head.is_indefinite())?;
    input.take(head.value).ok()
}

/// Reads a number.
pub(crate) fn number(item: &[u8]) -> Option<i128> {
    let head = Input::new(item).head().ok()?;
    match head.major {
        major::UNSIGNED => Some(i128::from(head.value)),
        major::NEGATIVE => Some(-1 - i128::from(head.value)),
        _ => None,
    }
}

/// Reads a truth.
pub(crate) fn truth(item: &[u8]) -> Option<bool> {
    match item {
        [0xF4] => Some(false),
        [0xF5] => Some(true),
        _ => None,
    }
}

/// Reads the bytes of a CID, without the zero that stands before them.
pub(crate) fn link(item: &[u8]) -> Option<&[u8]> {
    let mut input = Input::new(item);
    let head = input.head().ok()?;
    if (head.major, head.value) != (major::TAG, 42) {
        return None;
    }
    bytes(input.item().ok()?)?.strip_prefix(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(bytes: &[u8]) -> Result<usize, &'static str> {
        let mut input = Input::new(bytes);
        input.item().map(<[u8]>::len).map_err(|malformed| malformed.0)
    }

    #[test]
    fn an_item_is_passed_whole_however_it_is_written() {
        let items: [&[u8]; 16] = [
            &[0x00],
            &[0x1B, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0x43, 1, 2, 3],
            &[0x5F, 0x41, 1, 0x42, 2, 3, 0xFF],
            &[0x80],
            &[0x82, 1, 0x81, 2],
            &[0x9F, 1, 0x82, 2, 3, 0xFF],
            &[0x9F, 0x9F, 0xFF, 0xBF, 1, 2, 0xFF, 0xFF],
            &[0x82, 0x9F, 1, 0xFF, 2],
            &[0xA2, 1, 2, 3, 4],
            &[0xC1, 0x82, 1, 2],
            &[0x82, 0xC1, 1, 2],
            &[0x9F, 0xC1, 1, 2, 0xFF],
            &[0xF6],
            &[0xF8, 0x20],
            &[0xFB, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        for item in items {
            assert_eq!(passed(item), Ok(item.len()), "{item:?}");
            assert_eq!(passed(&[item, &[0]].concat()), Ok(item.len()), "{item:?} and more");
            for cut in 0..item.len() {
                assert_eq!(passed(&item[..cut]), Err(CUT.0), "{item:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_cbor_is_refused() {
        for bad in [&[0x1C][..], &[0xFF], &[0x81, 0xFF], &[0xF8, 0x14], &[0x3F], &[0xDF], &[0x5F, 0x61, b'x', 0xFF]] {
            assert!(passed(bad).is_err_and(|why| why != CUT.0), "{bad:?}");
        }
    }

    #[test]
    fn a_map_is_read_in_any_order_and_says_what_stands_twice() {
        let map = [&[0xBF][..], b"\x61b\x01", b"\x18\x20\x02", b"\x61a\x80", b"\x61b\x03", b"\x61c\xF6", &[0xFF, 0x07]]
            .concat();
        let mut input = Input::new(&map);
        let found = fields(&mut input, ["a", "b", "c", "d"]).unwrap();
        assert_eq!(found, [Field::Once(&[0x80]), Field::Twice, Field::Once(&[0xF6]), Field::Absent]);
        assert_eq!(input.rest, [7]);
        for bad in [&[0xA1, 1][..], &[0xBF, 1, 0xFF], &[0x80], &[]] {
            assert!(fields(&mut Input::new(bad), ["a"]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn depth_and_claimed_lengths_cost_nothing() {
        let deep = [vec![0x81; 1_000_000], vec![0]].concat();
        assert_eq!(passed(&deep), Ok(deep.len()));
        let open = |count: usize| [vec![0x9F; count], vec![0xFF; count]].concat();
        assert_eq!(passed(&open(OPEN)), Ok(2 * OPEN));
        assert_eq!(passed(&open(OPEN + 1)), Err("it is nested too deeply"));
        assert_eq!(passed(&[0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]), Err(CUT.0));
        assert_eq!(passed(&[0xBB, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]), Err(CUT.0));
        assert_eq!(passed(&[0x82, 0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]), Err(CUT.0));
    }

    #[test]
    fn values_are_read_or_none() {
        assert_eq!(
            (text(b"\x62hi"), text(b"\x42hi"), text(b"\x61\xFF"), text(b"\x7F\xFF")),
            (Some("hi"), None, None, None)
        );
        assert_eq!((number(&[0x18, 5]), number(&[0x20]), number(&[0xF6])), (Some(5), Some(-1), None));
        assert_eq!((truth(&[0xF5]), truth(&[0xF6])), (Some(true), None));
        assert_eq!(link(&[0xD8, 0x2A, 0x42, 0, 7]), Some(&[7][..]));
        assert_eq!((link(&[0xD8, 0x2A, 0x41, 7]), link(&[0xC1, 0x41, 0])), (None, None));
        let mut items = Input::new(&[0x9F, 1, 0x61, b'x', 0xFF, 9]).open(major::LIST).unwrap();
        assert_eq!(items.next(), Ok(Some(&[1][..])));
        assert_eq!(items.next(), Ok(Some(&[0x61, b'x'][..])));
        assert_eq!((items.next(), items.next()), (Ok(None), Ok(None)));
        assert_eq!(items.rest().rest, [9]);
    }
}
