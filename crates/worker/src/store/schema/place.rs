//! Where the tables are: in a database that can hold every letter, in one schema, which every role finds alike.

use penstock_postgres::schema::{self, RECORD};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tracing::{info, warn};

use super::{SEARCH_PATH, SchemaError, tables, wanted};

const ENCODING: &str = "SHOW server_encoding";

/// Tables of the same names in other schemas of the role's path.
const OTHERS: &str = "\
SELECT DISTINCT n.nspname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relname = ANY ($1) AND c.relkind IN ('r', 'p') AND n.nspname <> $2
   AND n.nspname::text = ANY (string_to_array(replace(replace((SELECT reset_val FROM pg_settings WHERE name = 'search_path'),
     '\"$user\"', current_user), ' ', ''), ','))";

const EXISTS: &str =
    "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1 AND has_schema_privilege(oid, 'USAGE'))";

/// What the role lacks of what workers do, as the statements that give it.
const GRANTS: &str = "\
WITH role AS (SELECT quote_ident(current_user) AS name),
spaces AS (SELECT n.oid, quote_ident(n.nspname) AS name FROM pg_namespace AS n WHERE n.nspname IN ($1, 'penstock')),
lacking AS (
  SELECT 1 AS at, 'USAGE ON SCHEMA ' || name AS what FROM spaces WHERE NOT has_schema_privilege(oid, 'USAGE')
  UNION ALL
  SELECT 2, string_agg(privilege, ', ' ORDER BY privilege) || ' ON ' || s.name || '.' || quote_ident(c.relname)
    FROM pg_class AS c JOIN spaces AS s ON s.oid = c.relnamespace,
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
   WHERE c.relkind IN ('r', 'p') AND NOT has_table_privilege(c.oid, privilege)
     AND CASE s.name WHEN 'penstock' THEN 'penstock.' || c.relname ELSE c.relname END = ANY ($2)
   GROUP BY s.name, c.relname
  UNION ALL
  SELECT 3, 'USAGE ON SEQUENCE ' || s.name || '.' || quote_ident(q.relname)
    FROM pg_class AS q JOIN pg_depend AS d ON d.objid = q.oid AND d.deptype IN ('a', 'i') AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class AS c ON c.oid = d.refobjid JOIN spaces AS s ON s.oid = c.relnamespace
   WHERE c.relname = ANY ($2) AND CASE WHEN q.relkind = 'S' THEN NOT has_sequence_privilege(q.oid, 'USAGE') END)
SELECT role.name, 'GRANT ' || what || ' TO ' || role.name FROM lacking, role ORDER BY at, what LIMIT 12";

/// Makes sure that a migration works where it should, and says where that is; a schema that is asked for is recorded.
pub(super) async fn settle(conn: &mut PgConnection, wanted: Option<&str>) -> Result<(), SchemaError> {
    encoding(conn).await?;
    let found = schema::found(conn).await?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != found.schema) {
        if found.recorded {
            return Err(SchemaError::OtherSchema { wanted: wanted.to_owned(), found: found.schema });
        }
        if !sqlx::query_scalar(EXISTS).bind(wanted).fetch_one(&mut *conn).await? {
            return Err(SchemaError::NoSchema(wanted.to_owned()));
        }
        record(conn, wanted).await?;
        conn.execute(SEARCH_PATH).await?;
    }
    let schema = schema::found(conn).await?.schema;
    let others: Vec<String> = sqlx::query_scalar(OTHERS).bind(tables()).bind(&schema).fetch_all(&mut *conn).await?;
    info!(schema, "the tables are in this schema");
    if !others.is_empty() {
        let others = others.join(", ");
        warn!(schema, others, "other schemas of the search path have tables of the same names, which are not used");
    }
    Ok(())
}

/// Checks that the database and the schema are such as a worker needs, and returns the schema.
pub(crate) async fn check(conn: &mut PgConnection, wanted: Option<&str>) -> Result<String, SchemaError> {
    encoding(conn).await?;
    let found = schema::found(conn).await?.schema;
    match wanted.filter(|wanted| *wanted != found) {
        Some(wanted) => Err(SchemaError::OtherSchema { wanted: wanted.to_owned(), found }),
        None => Ok(found),
    }
}

/// Checks that the role may do what workers do with the tables that are there, `derived` among them.
pub(crate) async fn grants(
    conn: &mut PgConnection,
    schema: &str,
    messages: bool,
    derived: &[&str],
) -> Result<(), SchemaError> {
    let names: Vec<&str> = wanted(messages).into_keys().chain(derived.iter().copied()).collect();
    let lacking: Vec<(String, String)> =
        sqlx::query_as(GRANTS).persistent(false).bind(schema).bind(names).fetch_all(conn).await?;
    let Some((role, _)) = lacking.first().cloned() else { return Ok(()) };
    Err(SchemaError::Grants { role, grants: lacking.into_iter().map(|(_, grant)| grant).collect() })
}

async fn encoding(conn: &mut PgConnection) -> Result<(), SchemaError> {
    let encoding: String = sqlx::query_scalar(ENCODING).persistent(false).fetch_one(conn).await?;
    if encoding == "UTF8" { Ok(()) } else { Err(SchemaError::Encoding(encoding)) }
}

/// Writes down which schema it is, beside what is Penstock's own.
async fn record(conn: &mut PgConnection, schema: &str) -> sqlx::Result<()> {
    let text = format!("{RECORD}{schema}").replace('\'', "''");
    conn.execute("CREATE SCHEMA IF NOT EXISTS penstock").await?;
    conn.execute(AssertSqlSafe(format!("COMMENT ON SCHEMA penstock IS '{text}'"))).await.map(drop)
}
