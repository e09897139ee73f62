#!/usr/bin/env bash
# drizzle-kit 0.31.11 (drizzle-orm 0.45.4): a `jsonb` default written with sql`…` as an object is set anew by every
# `drizzle-kit push`, where the text is exactly what PostgreSQL itself prints for it.
#
# Guessed: at worst a text that is not as PostgreSQL normalizes it ({"a":1,"b":2}) is set again; its own form settles.
# Seen: the other way round. {"a": 1, "b": 2}, byte for byte what pg_get_expr gives back, is set again each time ("Changes
# applied", an ALTER TABLE with its lock), for good; {"a":1,"b":2}, which PostgreSQL prints differently, settles at once ("No
# changes detected"): the tool takes the blanks out of what it reads from the database, not out of what the schema file says.
# So "Changes applied" at each start does not mean that anybody else changed the tables.
#
# Needs Node.js and npm. PostgreSQL is PGlite (0.3.14), in a folder. Exits with 1 when anything of this is seen otherwise.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat >package.json <<'JSON'
{ "private": true, "type": "module",
  "dependencies": { "drizzle-kit": "0.31.11", "drizzle-orm": "0.45.4", "@electric-sql/pglite": "0.3.14" } }
JSON
npm install --no-audit --no-fund --loglevel=error >/dev/null
cat >drizzle.config.ts <<'TS'
import { defineConfig } from 'drizzle-kit';
export default defineConfig({
  dialect: 'postgresql', driver: 'pglite', schema: './schema.ts', dbCredentials: { url: './data' },
});
TS
cat >default.mjs <<'JS'
import { PGlite } from '@electric-sql/pglite';
const db = new PGlite('./data');
const { rows } = await db.query('SELECT pg_get_expr(adbin, adrelid) AS expr FROM pg_attrdef');
console.log(rows[0].expr);
await db.close();
JS

# pushes DEFAULT: says what the first, the second and the third push of a table with this default say.
pushes() {
  rm -rf data
  cat >schema.ts <<TS
import { sql } from 'drizzle-orm';
import { jsonb, pgTable, text } from 'drizzle-orm/pg-core';
export const t = pgTable('t', { id: text().primaryKey(), prefs: jsonb().notNull().default($1) });
TS
  for _ in 1 2 3; do
    npx drizzle-kit push </dev/null >said 2>&1
    grep -oE 'Changes applied|No changes detected' said || cat said
  done | paste -sd ,
}
expect() { # default, seen, expected
  [ "$2" = "$3" ] && { printf 'as described: %s: %s\n' "$1" "$2"; return; }
  printf 'otherwise: %s\nseen:     %s\nexpected: %s\n' "$1" "$2" "$3"
  exit 1
}
again='Changes applied,Changes applied,Changes applied'
once='Changes applied,No changes detected,No changes detected'

own="'{\"a\": 1, \"b\": 2}'::jsonb"
expect "sql\`$own\`" "$(pushes "sql\`$own\`")" "$again"
expect 'what PostgreSQL has for it' "$(node default.mjs)" "$own"
expect "sql\`'{\"a\":1,\"b\":2}'::jsonb\`" "$(pushes "sql\`'{\"a\":1,\"b\":2}'::jsonb\`")" "$once"
expect '{ a: 1, b: 2 }' "$(pushes '{ a: 1, b: 2 }')" "$once"
