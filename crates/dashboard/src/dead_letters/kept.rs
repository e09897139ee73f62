//! Dead letters that PostgreSQL keeps: workers write each there, and what Redis has lost, or let go, is only there.

use penstock_core::dead_letter::LUA_IDS;
use penstock_core::script;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, Postgres, Row as _};

use super::head::{Head, Source, is_event};
use super::{CUT, DeadLetters, Replayed, WHOLE};
use crate::stored::Stored;

/// How many of the newest are looked at.
pub(crate) const MOST_KEPT: usize = 20_000;

/// A letter with its data.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) head: Head,
    pub(crate) data: Vec<u8>,
}

const HEAD: &str = "\
SELECT orig_id, kind, substring(data FOR 512) AS look, octet_length(data)::bigint AS bytes, left(seq, 40) AS seq,
       deliveries, left(error, 500) AS error, left(consumer, 300) AS consumer, left(repo, 300) AS repo,
       (extract(epoch FROM created_at) * 1000)::bigint AS at";

const SETTLE: &str = "UPDATE penstock.dead_letters SET settled_at = now() WHERE orig_id = ANY($1)";

/// Those that never were in the stream are told by what they say.
const SETTLE_FRAMES: &str = "\
UPDATE penstock.dead_letters AS letters SET settled_at = now()
  FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS these (kind, seq, error, bytes)
 WHERE letters.kind = these.kind AND left(letters.seq, 40) = these.seq AND octet_length(letters.data) = these.bytes
   AND (letters.error = these.error OR octet_length(these.error) > 490 AND starts_with(letters.error, these.error))";

// === impl Stored ===

impl Stored {
    /// Reads the heads of the newest letters that nobody has settled, one more than are looked at where there are more.
    pub(crate) async fn letters(&self) -> sqlx::Result<Vec<Head>> {
        let statement = format!(
            "{HEAD} FROM penstock.dead_letters WHERE settled_at IS NULL ORDER BY created_at DESC, orig_id DESC LIMIT {}",
            MOST_KEPT + 1
        );
        let query = sqlx::query(AssertSqlSafe(statement)).persistent(false);
        let rows = self.in_time(async {
            let mut connection = self.0.acquire().await?;
            let mut transaction = connection.begin().await?;
            let rows = query.fetch_all(&mut *transaction).await?;
            transaction.rollback().await?;
            Ok(rows)
        });
        let rows = rows.await?;
        rows.iter().map(head).collect()
    }

    /// Reads one letter to show it, settled or not: its data is cut.
    pub(crate) async fn look_at_letter(&self, orig_id: &str) -> sqlx::Result<Option<Kept>> {
        self.letter_with(&format!("substring(data FOR {CUT}) AS data"), orig_id).await
    }

    /// Reads one letter whole, settled or not.
    pub(crate) async fn letter(&self, orig_id: &str) -> sqlx::Result<Option<Kept>> {
        self.letter_with("data", orig_id).await
    }

    async fn letter_with(&self, data: &str, orig_id: &str) -> sqlx::Result<Option<Kept>> {
        let statement = format!("{HEAD}, {data} FROM penstock.dead_letters WHERE orig_id = $1");
        let query = sqlx::query(AssertSqlSafe(statement)).persistent(false).bind(orig_id);
        let row = self.in_time(async {
            let mut connection = self.0.acquire().await?;
            let mut transaction = connection.begin().await?;
            let row = query.fetch_optional(&mut *transaction).await?;
            transaction.rollback().await?;
            Ok(row)
        });
        let row = row.await?;
        row.map(|row| Ok(Kept { head: head(&row)?, data: row.try_get("data")? })).transpose()
    }

    /// Deletes one letter; says whether it was there.
    pub(crate) async fn delete_letter(&self, orig_id: &str) -> sqlx::Result<bool> {
        let query = sqlx::query("DELETE FROM penstock.dead_letters WHERE orig_id = $1").persistent(false).bind(orig_id);
        Ok(self.change(query).await? > 0)
    }

    /// Notes that somebody replayed or deleted these: they are no letters any more, until they fail again.
    pub(crate) async fn settle(&self, letters: &[Head]) -> sqlx::Result<()> {
        let mut ids = Vec::new();
        let (mut kinds, mut seqs, mut errors, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for letter in letters {
            match letter.identity() {
                (id, "", "", 0) => ids.push(id),
                (kind, seq, error, bytes) => {
                    kinds.push(kind);
                    seqs.push(seq);
                    errors.push(error);
                    sizes.push(i64::try_from(bytes).unwrap_or(i64::MAX));
                }
            }
        }
        if !ids.is_empty() {
            let query = sqlx::query(SETTLE).persistent(false).bind(ids);
            self.change(query).await?;
        }
        if !kinds.is_empty() {
            let query = sqlx::query(SETTLE_FRAMES).persistent(false).bind(kinds).bind(seqs).bind(errors).bind(sizes);
            self.change(query).await?;
        }
        Ok(())
    }

    /// Changes rows, and returns how many.
    async fn change(&self, query: Query<'_, Postgres, PgArguments>) -> sqlx::Result<u64> {
        self.in_time(async {
            let mut connection = self.0.acquire().await?;
            let mut transaction = connection.begin().await?;
            let changed = query.execute(&mut *transaction).await?.rows_affected();
            transaction.commit().await?;
            Ok(changed)
        })
        .await
    }
}

fn head(row: &PgRow) -> sqlx::Result<Head> {
    let id: String = row.try_get("orig_id")?;
    let number =
        |name: &str| -> sqlx::Result<u64> { Ok(u64::try_from(row.try_get::<i64, _>(name)?).unwrap_or_default()) };
    let is_id = id.parse::<penstock_core::stream::StreamId>().is_ok();
    let head = Head {
        kind: row.try_get("kind")?,
        seq: row.try_get("seq")?,
        orig_id: if is_id { id.clone() } else { String::new() },
        deliveries: number("deliveries")?.to_string(),
        error: row.try_get("error")?,
        consumer: row.try_get("consumer")?,
        repo: row.try_get("repo")?,
        ..Head::new(Source::Postgres, id, number("at")?, number("bytes")?)
    };
    let look: Vec<u8> = row.try_get("look")?;
    Ok(head.complete(&look))
}

// === impl DeadLetters ===

impl DeadLetters<'_> {
    /// Puts a letter back into the stream that only PostgreSQL has; it stays there.
    pub(crate) async fn restore(&self, kept: &Kept) -> Result<Replayed, fred::error::Error> {
        if !is_event(&kept.head.kind) || kept.head.orig_id.is_empty() {
            return Ok(Replayed { left: 1, ..Replayed::default() });
        }
        let mark = self.settings.ingest.high_watermark;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX).to_string().into_bytes();
        let arguments = [
            number(mark.of(self.settings.redis.max_stream_len)),
            number(mark.of(WHOLE)),
            kept.head.kind.clone().into_bytes(),
            kept.data.clone(),
            kept.head.seq.clone().into_bytes(),
            kept.head.orig_id.clone().into_bytes(),
        ];
        let [_, _, held] = self.settings.keys.beside_letters(penstock_core::dead_letter::Author::Worker);
        let keys = vec![self.settings.keys.stream().to_owned(), held];
        let script = format!("{LUA_IDS}{}", include_str!("restore.lua"));
        let arguments = arguments.map(|argument| fred::types::Value::Bytes(argument.into())).to_vec();
        let said: String = self.in_time(script::run(&self.client, script, keys, arguments)).await?;
        Ok(match said.as_str() {
            "replayed" => Replayed { replayed: 1, ..Replayed::default() },
            "refused" => Replayed { refused: 1, ..Replayed::default() },
            _ => Replayed { full: true, ..Replayed::default() },
        })
    }
}
