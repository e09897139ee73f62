//! Times as PostgreSQL's `timestamp` holds them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use penstock_core::stream::StreamId;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

/// A `timestamp` in UTC: microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Micros(i64);

// The OIDs of built-in types are the same in every PostgreSQL; by name each connection would look them up first.
const TIMESTAMP: Oid = Oid(1114);
const TIMESTAMP_ARRAY: Oid = Oid(1115);

/// Where PostgreSQL's count begins, 2000-01-01, in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// The last second of the calendar: 9999-12-30T22:00:00Z.
const LATEST: Micros = Micros(253_402_207_200_000_000);

// === impl Micros ===

impl Micros {
    /// Takes the time at which Redis gave an entry its ID.
    pub(crate) fn of_entry(id: StreamId) -> Self {
        let ms = i64::try_from(id.ms).unwrap_or(i64::MAX);
        // An explicit ID can lie beyond any calendar.
        Timestamp::from_millisecond(ms).map_or(LATEST, Self::from)
    }

    /// Reads a datetime of any offset; `None` where it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        penstock_core::time::parse(text).map(Self::from)
    }

    /// Returns the time so much later.
    pub(crate) fn later_by(self, time: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Writes the time as `to_jsonb` writes a `timestamp`: without a zone.
    pub(crate) fn to_text(self) -> String {
        let time = Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH);
        format!("{:.6}", time.to_zoned(TimeZone::UTC).datetime())
    }
}

impl From<Timestamp> for Micros {
    fn from(time: Timestamp) -> Self {
        Self(time.as_microsecond())
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
        Encode::<Postgres>::encode_by_ref(&(self.0 - POSTGRES_EPOCH), buf)
    }

    fn size_hint(&self) -> usize {
        size_of::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_its_text() {
        for text in ["2026-07-04T14:38:08.999001Z", "1999-12-31T23:59:59Z", "-000001-01-01T00:00:00Z"] {
            let time = Micros::parse(text).unwrap();
            assert_eq!(Micros::parse(&time.to_text()), Some(time), "{text}");
        }
        assert_eq!(Micros::parse("2026-07-04T14:38:08+02:00").unwrap().to_text(), "2026-07-04T12:38:08.000000");
        assert_eq!(Micros::parse("today"), None);
    }

    #[test]
    fn an_id_beyond_the_calendar_is_still_a_time() {
        assert_eq!(Micros::of_entry(StreamId { ms: 0, seq: 9 }).to_text(), "1970-01-01T00:00:00.000000");
        assert_eq!(Micros::of_entry(StreamId { ms: u64::MAX, seq: 0 }).to_text(), "9999-12-30T22:00:00.000000");
    }
}
