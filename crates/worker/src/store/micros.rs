//! Times as PostgreSQL's `timestamp` holds them.

use jiff::Timestamp;
use penstock_core::stream::StreamId;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

/// A `timestamp` in UTC, as PostgreSQL counts it: microseconds since 2000-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Micros(i64);

// The OIDs of built-in types are the same in every PostgreSQL; by name each connection would look them up first.
const TIMESTAMP: Oid = Oid(1114);
const TIMESTAMP_ARRAY: Oid = Oid(1115);

/// Where PostgreSQL's count begins, 2000-01-01, in days and in microseconds since 1970.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH: i64 = EPOCH_DAYS * DAY;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// The first moment that a `timestamp` holds, 4714-11-24 BC, and the one after its last, 294277-01-01.
const RANGE: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// The last second of the calendar: 9999-12-30T22:00:00Z.
const LATEST: Micros = Micros(253_402_207_200_000_000 - EPOCH);

/// What is left of a text that is being read.
struct Rest<'t>(&'t [u8]);

// === impl Micros ===

impl Micros {
    /// Takes the time at which Redis gave an entry its ID.
    pub(crate) fn of_entry(id: StreamId) -> Self {
        let ms = i64::try_from(id.ms).unwrap_or(i64::MAX);
        // An explicit ID can lie beyond any calendar.
        Timestamp::from_millisecond(ms).map_or(LATEST, Self::from)
    }

    /// Takes a time that a host says; `None` where PostgreSQL does not hold its year.
    pub(crate) fn of_host(time: Timestamp) -> Option<Self> {
        Some(Self::from(time)).filter(|time| RANGE.contains(&time.0))
    }

    /// Reads a datetime of any offset; `None` where it is none, or a year that PostgreSQL does not hold.
    ///
    /// Takes what the protocol calls valid, with a fraction of any length, which is cut after six digits, and what clients
    /// send besides: no zone (then it is UTC), no seconds or no time at all, an offset without its colon, small letters, a
    /// space, a year of six digits with its sign.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = Rest(text.as_bytes());
        let year = match rest.one_of(b"+-") {
            None => rest.digits(4)?,
            Some(sign) => match (sign, rest.digits(6)?) {
                (b'+', year) => year,
                (_, 0) => return None,
                (_, year) => -year,
            },
        };
        rest.moment(year)
    }

    /// Reads the time of a row that became JSON: PostgreSQL writes a year as long as it is, and `BC` behind what lies before
    /// the year 1.
    pub(crate) fn from_row(text: &str) -> Option<Self> {
        let (moment, before) = text.strip_suffix(" BC").map_or((text, false), |moment| (moment, true));
        let width = moment.bytes().take_while(u8::is_ascii_digit).count();
        if !(4..=6).contains(&width) {
            // Rows that began to wait before it was written as PostgreSQL does.
            return Self::parse(text);
        }
        let mut rest = Rest(moment.as_bytes());
        let year = rest.digits(width)?;
        rest.moment(if before { 1 - year } else { year })
    }

    /// Writes the time as `to_jsonb` writes a `timestamp`: without a zone.
    pub(crate) fn to_text(self) -> String {
        let (days, time) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (year, month, day) = date_of(days + EPOCH_DAYS);
        let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
        let (seconds, micros) = (time / SECOND, time % SECOND);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}{era}")
    }
}

/// Counts the days from 1970-01-01 to a date of the Gregorian calendar, in years of 400 that begin in March.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

/// Returns the date that lies so many days after 1970-01-01: [`days_to`] backwards.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

// === impl Rest ===

impl Rest<'_> {
    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        let found = bytes.contains(first).then_some(*first)?;
        self.0 = rest;
        Some(found)
    }

    /// Takes exactly so many digits.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let number = digits
            .iter()
            .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(*digit - b'0')))?;
        self.0 = rest;
        Some(number)
    }

    /// Takes a number of two digits in a range.
    fn two(&mut self, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        self.digits(2).filter(|number| range.contains(number))
    }

    /// Takes what follows the year, to the end.
    fn moment(mut self, year: i64) -> Option<Micros> {
        self.one_of(b"-")?;
        let month = self.two(1..=12)?;
        self.one_of(b"-")?;
        let day = self.two(1..=days_in(year, month))?;
        let time = if self.0.is_empty() { 0 } else { self.time()? };
        let days = days_to(year, month, day) - EPOCH_DAYS;
        let micros = days.checked_mul(DAY)?.checked_add(time)?;
        (self.0.is_empty() && RANGE.contains(&micros)).then_some(Micros(micros))
    }

    /// Takes the time of day and the zone; returns the microseconds from midnight in UTC.
    fn time(&mut self) -> Option<i64> {
        self.one_of(b"Tt ")?;
        let hour = self.two(0..=23)?;
        self.one_of(b":")?;
        let minute = self.two(0..=59)?;
        let (mut second, mut micros) = (0, 0);
        if self.one_of(b":").is_some() {
            // A leap second is the first one of the next minute.
            second = self.two(0..=60)?;
            if self.one_of(b".,").is_some() {
                micros = self.fraction()?;
            }
        }
        let offset = self.offset()?;
        Some(((hour * 60 + minute - offset) * 60 + second) * SECOND + micros)
    }

    /// Takes at least one digit, of which the first six count.
    fn fraction(&mut self) -> Option<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        let six = digits.iter().chain(b"000000").take(6);
        (count > 0).then(|| six.fold(0, |number, digit| number * 10 + i64::from(*digit - b'0')))
    }

    /// Takes the zone, as minutes east of UTC.
    fn offset(&mut self) -> Option<i64> {
        let Some(sign) = self.one_of(b"Zz+-") else { return Some(0) };
        if matches!(sign, b'Z' | b'z') {
            return Some(0);
        }
        let hours = self.two(0..=23)?;
        let minutes = match self.one_of(b":") {
            None if self.0.is_empty() => 0,
            _ => self.two(0..=59)?,
        };
        let offset = hours * 60 + minutes;
        Some(if sign == b'-' { -offset } else { offset })
    }
}

impl From<Timestamp> for Micros {
    fn from(time: Timestamp) -> Self {
        Self(time.as_microsecond() - EPOCH)
    }
}

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMP)
    }
}

impl PgHasArrayType for Micros {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMP_ARRAY)
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&self.0, buf)
    }

    fn size_hint(&self) -> usize {
        size_of::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts that are times but for a digit or two.
    const NEAR: &str = concat!(
        "[+-]?([0-9]{4}|[0-9]{6})-[01][0-9]-[0-3][0-9]",
        "([Tt ][0-2][0-9](:[0-6][0-9]){1,2}([.,][0-9]{0,12})?)?([Zz]|[+-][0-2][0-9](:?[0-6][0-9])?)?( BC)?",
    );

    /// What each text is, as a row shows it.
    const READ: [(&str, &str); 29] = [
        ("2024-05-06T17:08:09.123Z", "2024-05-06T17:08:09.123000"),
        ("2024-05-06T17:08:09Z", "2024-05-06T17:08:09.000000"),
        ("2024-05-06T17:08:09.1Z", "2024-05-06T17:08:09.100000"),
        ("2024-05-06T17:08:09.123456789012Z", "2024-05-06T17:08:09.123456"),
        ("2024-05-06T17:08:09.99999999999999999999999999Z", "2024-05-06T17:08:09.999999"),
        ("2024-05-06T17:08:09.123+01:45", "2024-05-06T15:23:09.123000"),
        ("2024-05-06T17:08:09.123-07:00", "2024-05-07T00:08:09.123000"),
        ("2024-05-06T17:08:09.123-00:00", "2024-05-06T17:08:09.123000"),
        ("0000-01-01T00:00:00.000Z", "0001-01-01T00:00:00.000000 BC"),
        ("0000-01-01T00:00:00+01:00", "0002-12-31T23:00:00.000000 BC"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000"),
        ("-000001-12-31T23:00:00.000Z", "0002-12-31T23:00:00.000000 BC"),
        ("-004713-11-24T00:00:00Z", "4714-11-24T00:00:00.000000 BC"),
        ("0000-02-29T12:00:00Z", "0001-02-29T12:00:00.000000 BC"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999000"),
        ("9999-12-31T23:59:59-23:59", "10000-01-01T23:58:59.000000"),
        ("+294276-12-31T23:59:59.999999Z", "294276-12-31T23:59:59.999999"),
        ("+002024-05-06T17:08:09.123Z", "2024-05-06T17:08:09.123000"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000"),
        ("2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000000"),
        ("2024-05-06T17:08:09.123z", "2024-05-06T17:08:09.123000"),
        ("2024-05-06t17:08:09.123Z", "2024-05-06T17:08:09.123000"),
        ("2024-05-06 17:08:09.123Z", "2024-05-06T17:08:09.123000"),
        ("2024-05-06T17:08:09,5Z", "2024-05-06T17:08:09.500000"),
        ("2024-05-06T17:08:09.123", "2024-05-06T17:08:09.123000"),
        ("2024-05-06T17:08:09.123+0130", "2024-05-06T15:38:09.123000"),
        ("2024-05-06T17:08:09.123+01", "2024-05-06T16:08:09.123000"),
        ("2024-05-06T17:08Z", "2024-05-06T17:08:00.000000"),
        ("2024-05-06", "2024-05-06T00:00:00.000000"),
    ];

    const UNREAD: [&str; 29] = [
        "",
        "today",
        "2024-00-12T23:20:50.123Z",
        "2024-04-00T23:20:50.123Z",
        "2024-13-12T23:20:50.123Z",
        "2024-05-06T25:20:50.123Z",
        "2024-05-06T24:00:00Z",
        "2024-05-06T23:99:50.123Z",
        "2024-05-06T23:20:61.123Z",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "02024-05-06T17:08:09.123Z",
        "985-05-06T23:20:50.123Z",
        "2024-05-06T17:08:09.Z",
        "2024-05-06T17;08:09.123Z",
        " 2024-05-06T17:08:09.123Z",
        "2024-05-06T17:08:09.123Z ",
        "2024-4-12T23:20:50.123Z",
        "2024-05-06T17:08:9Z",
        "2024-05-06_23:20:50.123Z",
        "2024-05-06T17:08:09.123+00:0",
        "2024-05-06T17:08:09.123+24:00",
        "2024-05-06T17:08:09.123+",
        "2024-05-06T",
        "-000000-01-01T00:00:00Z",
        "-004713-11-23T23:59:59Z",
        "+294277-01-01T00:00:00Z",
        "+999999-12-31T23:59:59Z",
        "2024\u{2013}04-12T23:20:50Z",
    ];

    #[test]
    fn every_text_is_the_time_that_it_says_or_none() {
        for (text, shown) in READ {
            let time = Micros::parse(text).unwrap_or_else(|| panic!("{text} is not read"));
            assert_eq!(time.to_text(), shown, "{text}");
            assert_eq!(Micros::from_row(shown), Some(time), "{text}");
            assert_eq!(Micros::from_row(shown.trim_end_matches(".000000")), Some(time), "{text}");
        }
        for text in UNREAD {
            assert_eq!(Micros::parse(text), None, "{text}");
        }
    }

    #[test]
    fn rows_that_began_to_wait_under_an_older_version_are_read() {
        assert_eq!(Micros::from_row("-000001-01-01T00:00:00.000000"), Micros::parse("-000001-01-01T00:00:00Z"));
        assert_eq!(Micros::from_row("0000-01-01T00:00:00.000000"), Micros::parse("0000-01-01T00:00:00Z"));
        assert_eq!(Micros::from_row("infinity"), None);
    }

    #[test]
    fn an_id_beyond_the_calendar_is_still_a_time() {
        assert_eq!(Micros::of_entry(StreamId { ms: 0, seq: 9 }).to_text(), "1970-01-01T00:00:00.000000");
        assert_eq!(Micros::of_entry(StreamId { ms: u64::MAX, seq: 0 }).to_text(), "9999-12-30T22:00:00.000000");
    }

    #[test]
    fn a_hosts_clock_may_be_off_by_ten_thousand_years() {
        assert_eq!(Micros::of_host(Timestamp::MIN), None);
        assert_eq!(Micros::of_host(Timestamp::MAX).unwrap().to_text(), "9999-12-30T22:00:00.999999");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every time that PostgreSQL holds survives its text, and those of jiff's range are what jiff says they are.
        #[test]
        fn any_time_survives_its_text(micros in RANGE) {
            let time = Micros(micros);
            prop_assert_eq!(Micros::from_row(&time.to_text()), Some(time));
            if let Ok(known) = micros.checked_add(EPOCH).ok_or(()).and_then(|since| Timestamp::from_microsecond(since).map_err(drop)) {
                prop_assert_eq!(Micros::parse(&known.to_string()), Some(time));
            }
        }

        #[test]
        fn dates_are_the_calendars(second in -210_866_803_200_i64..=253_402_207_200) {
            let known = Timestamp::from_second(second).unwrap();
            let time = Micros::from(known);
            prop_assert_eq!(Micros::parse(&known.to_string()), Some(time));
            prop_assert_eq!(Micros::from_row(&time.to_text()), Some(time));
        }

        /// Of texts that are nearly times none is too odd, and what jiff makes one of is the same here, but for leap seconds.
        #[test]
        fn no_text_is_too_odd(text in "\\PC*", near in NEAR) {
            let _ = (Micros::parse(&text), Micros::from_row(&text), Micros::from_row(&near));
            if let (Some(ours), Ok(known)) = (Micros::parse(&near), near.parse::<Timestamp>()) {
                let theirs = known.as_nanosecond().div_euclid(1000) - i128::from(EPOCH);
                prop_assert!(i128::from(ours.0) == theirs || near.contains(":60"), "{ours:?} {theirs:?}");
            }
        }
    }
}
