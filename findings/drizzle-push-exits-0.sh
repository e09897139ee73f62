#!/usr/bin/env bash
# drizzle-kit 0.31.11 (drizzle-orm 0.45.4): `drizzle-kit push` ends with exit code 0 when it has applied nothing, and when
# PostgreSQL refused a statement in the middle.
#
# Guessed: without a terminal a question ends it with an error code; `--force` asks nothing ("Auto-approve all data loss
# statements"); a refused statement ends it with an error code and undoes what went before.
# Seen, twice on valid input:
#  1. A new table beside one that the schema file does not name: "created or renamed from another table?" is asked under
#     `--force` too. Without a terminal: "Error: Interactive prompts require a TTY terminal", nothing applied, exit code 0.
#  2. A unique index on values that are not unique: "error: could not create unique index", the table that came before it
#     stays, exit code 0.
# So `if npm run db:push; then start; else retry; fi` always starts, on whatever tables there are. What tells is the line
# "Changes applied" or "No changes detected".
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
cat >ask.mjs <<'JS'
import { PGlite } from '@electric-sql/pglite';
const db = new PGlite('./data');
for (const sql of process.argv.slice(2)) {
  const { rows } = await db.query(sql);
  for (const row of rows) console.log(Object.values(row).join(' '));
}
await db.close();
JS
tables="SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"

# push FLAGS…: runs it without a terminal; what it says goes to `said`, its code to `code`.
push() {
  code=0
  npx drizzle-kit push "$@" </dev/null >said 2>&1 || code=$?
}
expect() { # what, seen, expected
  [ "$2" = "$3" ] && { printf 'as described: %s\n' "$1"; return; }
  printf 'otherwise: %s\nseen:     %s\nexpected: %s\n' "$1" "$2" "$3"
  cat said
  exit 1
}
says() { grep -qF "$1" said && echo yes || echo no; }

cat >schema.ts <<'TS'
import { pgTable, text } from 'drizzle-orm/pg-core';
export const wanted = pgTable('wanted', { id: text().primaryKey() });
TS
node ask.mjs 'CREATE TABLE stranger (id text)'
push --force
expect '1: it asks although it is forced' "$(says 'Interactive prompts require a TTY terminal')" yes
expect '1: it applies nothing' "$(node ask.mjs "$tables")" stranger
expect '1: it says neither of the two lines' "$(says 'Changes applied')$(says 'No changes detected')" nono
expect '1: it ends well' "$code" 0

rm -rf data
cat >schema.ts <<'TS'
import { pgTable, text, uniqueIndex } from 'drizzle-orm/pg-core';
export const named = pgTable('named', { id: text().primaryKey(), name: text() }, (t) => [uniqueIndex('one_name').on(t.name)]);
export const wanted = pgTable('wanted', { id: text().primaryKey() });
TS
node ask.mjs 'CREATE TABLE named (id text PRIMARY KEY, name text)' "INSERT INTO named VALUES ('1', 'same'), ('2', 'same')"
push
expect '2: the index is refused' "$(says 'could not create unique index "one_name"')" yes
expect '2: the table before it stays' "$(node ask.mjs "$tables" | xargs)" 'named wanted'
expect '2: it does not say that it applied anything' "$(says 'Changes applied')" no
expect '2: it ends well' "$code" 0
