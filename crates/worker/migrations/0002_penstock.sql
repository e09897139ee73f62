-- What is Penstock's own: all of it in a schema of its own, because the AppView's schema tool takes everything in `public`
-- for its own to keep or to drop.

CREATE SCHEMA IF NOT EXISTS penstock;

-- Which schema the AppView's tables are in that this one goes with: every role finds it here, whatever its search path.
DO $$
BEGIN
  IF obj_description('penstock'::regnamespace, 'pg_namespace') IS DISTINCT FROM 'Penstock, for the tables in schema ' || current_schema() THEN
    EXECUTE format('COMMENT ON SCHEMA penstock IS %L', 'Penstock, for the tables in schema ' || current_schema());
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  NULL;
END
$$;

-- Texts sort bytewise, which is what we compare by and faster than any language's order.
-- `entry_id` and the columns named like it hold stamps (see store/version.rs). Tables of the AppView's that have `commit_rev` and
-- `commit_seq` hold theirs themselves.

-- The guard of each row in a table of the AppView's that has no columns for it, by the record's URI.
CREATE TABLE IF NOT EXISTS penstock.stamps (
  uri varchar(512) COLLATE "C" PRIMARY KEY,
  commit_rev varchar(64) COLLATE "C",
  entry_id varchar(32) COLLATE "C"
);

-- What is counted for posts that are not there, and for other records that can be liked. A batch that adds to the counts of
-- such a URI holds its row here, and so does one that makes the post.
CREATE TABLE IF NOT EXISTS penstock.waiting_counts (
  post_uri varchar(512) COLLATE "C" PRIMARY KEY,
  like_count int NOT NULL DEFAULT 0,
  repost_count int NOT NULL DEFAULT 0,
  reply_count int NOT NULL DEFAULT 0,
  quote_count int NOT NULL DEFAULT 0,
  bookmark_count int NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

-- Which rows of `messages` came through the buffer. Not called as that table is: a role named like the schema finds ours first.
CREATE TABLE IF NOT EXISTS penstock.message_keys (
  dedupe_key text COLLATE "C" PRIMARY KEY,
  message_id bigint NOT NULL,
  tracking_id text
);

-- One row a repo: what batches lock, and what guards its account; and one, named `subject:` and the DID, for each account
-- that somebody verified. Room in the pages lets updates stay where they are.
CREATE TABLE IF NOT EXISTS penstock.repos (
  did text COLLATE "C" PRIMARY KEY,
  rev varchar(64) COLLATE "C",
  active bool,
  status text,
  deleted_through text COLLATE "C",
  swept_through text COLLATE "C",
  identity_entry text COLLATE "C",
  account_entry text COLLATE "C",
  profile_rev varchar(64) COLLATE "C",
  profile_entry text COLLATE "C"
) WITH (fillfactor = 60);
CREATE INDEX IF NOT EXISTS repos_unswept ON penstock.repos (did)
  WHERE deleted_through IS NOT NULL AND (swept_through IS NULL OR swept_through < deleted_through);

-- Records that are gone, for as long as an older event of theirs could still come.
CREATE TABLE IF NOT EXISTS penstock.tombstones (
  uri varchar(512) COLLATE "C" PRIMARY KEY,
  commit_rev varchar(64) COLLATE "C",
  entry_id text COLLATE "C"
);
CREATE INDEX IF NOT EXISTS tombstones_entry_id ON penstock.tombstones (entry_id);

-- Records whose place in their table another one holds: `kind` is the table, the keys are its unique columns.
CREATE TABLE IF NOT EXISTS penstock.shadowed (
  uri varchar(512) COLLATE "C" PRIMARY KEY,
  repo varchar(255) COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  key_a text COLLATE "C" NOT NULL,
  key_b text COLLATE "C" NOT NULL,
  commit_rev varchar(64) COLLATE "C",
  entry_id text COLLATE "C",
  row jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS shadowed_repo ON penstock.shadowed (repo);

-- What each worker has written in total, for `db:record_counts`.
CREATE TABLE IF NOT EXISTS penstock.counts (
  worker text COLLATE "C",
  field text COLLATE "C",
  total bigint NOT NULL,
  PRIMARY KEY (worker, field)
) WITH (fillfactor = 50);

-- Up to where each host's events are surely written, should Redis be lost.
CREATE TABLE IF NOT EXISTS penstock.checkpoint (
  host text COLLATE "C" PRIMARY KEY,
  seq bigint NOT NULL,
  stream_id text NOT NULL,
  updated_at timestamp NOT NULL DEFAULT now()
);

-- Entries that failed for good; `data` is the entry's, byte for byte.
CREATE TABLE IF NOT EXISTS penstock.dead_letters (
  orig_id text COLLATE "C" PRIMARY KEY,
  kind text COLLATE "C" NOT NULL,
  data bytea NOT NULL,
  seq text NOT NULL,
  deliveries bigint NOT NULL,
  error text NOT NULL,
  consumer text NOT NULL,
  created_at timestamp NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS dead_letters_created_at ON penstock.dead_letters (created_at);

CREATE TABLE IF NOT EXISTS penstock.meta (
  key text COLLATE "C" PRIMARY KEY,
  value text NOT NULL
);
-- When the database was made, epoch milliseconds: what is older was never read into it. Of one that is older than this, it is not known.
INSERT INTO penstock.meta (key, value) SELECT 'created_at', (extract(epoch FROM now()) * 1000)::bigint
 WHERE NOT EXISTS (SELECT FROM penstock.meta WHERE key = 'incarnation') ON CONFLICT (key) DO NOTHING;
INSERT INTO penstock.meta (key, value) VALUES ('incarnation', gen_random_uuid()) ON CONFLICT (key) DO NOTHING;

-- What is known of accounts, should the AppView prune their rows: the handle of the last identity event, and the profile
-- as it stands in `users`. `forbidden` says that the account opted out (`user_settings.data_collection_forbidden`).
ALTER TABLE penstock.repos ADD COLUMN IF NOT EXISTS handle text, ADD COLUMN IF NOT EXISTS forbidden bool;
CREATE INDEX IF NOT EXISTS repos_forbidden ON penstock.repos (did) WHERE forbidden;
CREATE TABLE IF NOT EXISTS penstock.profiles (
  did text COLLATE "C" PRIMARY KEY,
  display_name text,
  description text,
  avatar_url text,
  banner_url text,
  record jsonb NOT NULL,
  pinned_post jsonb,
  created_at timestamp
) WITH (fillfactor = 80);

-- The CIDs of likes whose post is not there: `likes` has no column for them, and the notification that comes with the post
-- says them.
CREATE TABLE IF NOT EXISTS penstock.waiting_cids (
  uri varchar(512) COLLATE "C" PRIMARY KEY,
  cid varchar(255) NOT NULL
);

-- Posts that came or went and had more answers, likes, reposts and quotes than one transaction deals with.
CREATE TABLE IF NOT EXISTS penstock.unfinished_posts (
  uri varchar(512) COLLATE "C" PRIMARY KEY
);

-- Where a record stands among those of one repo that want the same place, as text that sorts so: see `rank` in
-- store/version.rs. With a rev by that; without one by the relay's number, then by who wrote it, then by the stream ID.
CREATE OR REPLACE FUNCTION penstock.place(rev text, entry text) RETURNS text
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  parts text[];
  number numeric := 0;
  digit text;
BEGIN
  IF rev IS NOT NULL THEN
    RETURN '2' || rev;
  END IF;
  IF entry ~ '^[0-9]{1,20}$' THEN
    -- Another program's: the number alone.
    RETURN '11' || lpad(entry, 20, '0') || '0';
  END IF;
  parts := regexp_match(entry, '^(!?)([^:_]+-[^:_]+)([:_]?)([0-9a-z]*)$');
  IF parts IS NULL THEN
    RETURN '0';
  END IF;
  IF parts[3] = '_' THEN
    FOREACH digit IN ARRAY string_to_array(parts[4], NULL) LOOP
      number := number * 36 + strpos('0123456789abcdefghijklmnopqrstuvwxyz', digit) - 1;
    END LOOP;
    parts[4] := number::text;
  END IF;
  RETURN CASE WHEN parts[4] = '' THEN '10' ELSE '11' || lpad(parts[4], 20, '0') END
    || CASE WHEN parts[1] = '' THEN '2' ELSE '1' END || parts[2];
END
$$;

-- The best of those that wait for a pair is found without reading the others, whatever waits. Of verifications the lowest URI
-- shows.
CREATE INDEX IF NOT EXISTS shadowed_best
  ON penstock.shadowed (key_b, key_a, kind, penstock.place(commit_rev, entry_id), uri);
CREATE INDEX IF NOT EXISTS shadowed_verifications ON penstock.shadowed (key_b, uri) WHERE kind = 'verifications';
DROP INDEX IF EXISTS penstock.shadowed_pair;

-- Deleted accounts, and posts with much behind them, of which a step was done or failed: they take turns. `due` is when the
-- next step is, `step` how many rows it may take where it may not take all that the settings say.
CREATE TABLE IF NOT EXISTS penstock.sweeps (
  what text COLLATE "C" PRIMARY KEY,
  due timestamptz NOT NULL DEFAULT clock_timestamp(),
  attempts int NOT NULL DEFAULT 0,
  step int,
  error text
);
CREATE INDEX IF NOT EXISTS sweeps_due ON penstock.sweeps (due);

-- Records that the AppView's columns are too narrow for, or not wide enough to say all of. `key` is the URI, or `sha256:` and the
-- digest of one that is longer than 512 bytes or holds a NUL, in hexadecimal: an index takes none that long.
CREATE TABLE IF NOT EXISTS penstock.records (
  key varchar(512) COLLATE "C" PRIMARY KEY,
  uri text COLLATE "C" NOT NULL,
  did text COLLATE "C" NOT NULL,
  collection text COLLATE "C" NOT NULL,
  cid text COLLATE "C",
  record jsonb NOT NULL,
  created_at timestamp NOT NULL,
  indexed_at timestamp NOT NULL DEFAULT now(),
  commit_rev varchar(64) COLLATE "C",
  entry_id varchar(32) COLLATE "C"
);
CREATE INDEX IF NOT EXISTS records_did ON penstock.records (did);

-- When a worker last added to its totals: those of workers that are no more are folded into the row of the worker ''.
ALTER TABLE penstock.counts ADD COLUMN IF NOT EXISTS written_at timestamptz NOT NULL DEFAULT now();

-- Whose letter it is, where that is known: each has a share of the place.
ALTER TABLE penstock.dead_letters ADD COLUMN IF NOT EXISTS repo text;

-- When somebody replayed or deleted it in Redis: what is kept here is then no longer shown as a letter, until it fails again.
ALTER TABLE penstock.dead_letters ADD COLUMN IF NOT EXISTS settled_at timestamp;

-- The letter of an event that came again under another ID is found by its number, of which others may write anything.
CREATE INDEX IF NOT EXISTS dead_letters_seq ON penstock.dead_letters (left(seq, 40)) WHERE seq <> '';

-- Whose letters there are is asked for by a person who looks for one account.
CREATE INDEX IF NOT EXISTS dead_letters_repo ON penstock.dead_letters (left(repo, 512), created_at DESC) WHERE settled_at IS NULL;

-- Repos whose rows are known not to be all that the repo holds, one row each: `reason` says why, the greatest `priority` comes
-- first among those that are due. What came since a repair began is told by `updated_at`.
CREATE TABLE IF NOT EXISTS penstock.repairs (
  did text COLLATE "C" PRIMARY KEY,
  reason text COLLATE "C" NOT NULL,
  priority smallint NOT NULL DEFAULT 0,
  due timestamp NOT NULL DEFAULT now(),
  attempts int NOT NULL DEFAULT 0,
  lease timestamp,
  error text,
  progress jsonb,
  created_at timestamp NOT NULL DEFAULT now(),
  updated_at timestamp NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS repairs_due ON penstock.repairs (priority DESC, due);

-- The beginning of the digest of the tree at `rev` ('' where another program wrote the last commit), and why and since when a
-- repo is known to have missed something.
ALTER TABLE penstock.repos ADD COLUMN IF NOT EXISTS root bytea, ADD COLUMN IF NOT EXISTS sync text,
  ADD COLUMN IF NOT EXISTS sync_at timestamptz;
CREATE INDEX IF NOT EXISTS repos_sync ON penstock.repos (did) WHERE sync IS NOT NULL;

-- Up to where a snapshot of a repo covers it: the rev as of which it was read and when that began, of the last one that is written as
-- a whole, and of the one that is being written, through which path, and whether nothing of the repo was stored when that began.
-- Events at or below it are in it.
ALTER TABLE penstock.repos ADD COLUMN IF NOT EXISTS snapshot_rev varchar(64) COLLATE "C",
  ADD COLUMN IF NOT EXISTS snapshot_entry text COLLATE "C", ADD COLUMN IF NOT EXISTS writing_rev varchar(64) COLLATE "C",
  ADD COLUMN IF NOT EXISTS writing_entry text COLLATE "C", ADD COLUMN IF NOT EXISTS writing_through text COLLATE "C",
  ADD COLUMN IF NOT EXISTS writing_fresh bool;

-- The CIDs of records whose tables have no column for them: the digest in each. Only with `worker.recordCids`.
CREATE TABLE IF NOT EXISTS penstock.cids (
  uri varchar(512) COLLATE "C" PRIMARY KEY,
  cid bytea NOT NULL
);

-- What is known of accounts' keys, hosts and handles, for all services. `key` is 34 bytes as the library writes it, `handle` what the
-- account's document claims. `stale` says why the document has to be asked for again, `failures` how often asking was of no use.
CREATE TABLE IF NOT EXISTS penstock.identities (
  did text COLLATE "C" PRIMARY KEY,
  key bytea,
  host text,
  handle text,
  handle_checked_at timestamptz,
  handle_valid boolean,
  fetched_at timestamptz,
  stale text,
  stale_at timestamptz,
  failures int NOT NULL DEFAULT 0,
  failed_at timestamptz,
  error text
) WITH (fillfactor = 80);
-- Those of which nothing is known go after a while.
CREATE INDEX IF NOT EXISTS identities_failed ON penstock.identities (failed_at) WHERE fetched_at IS NULL;

-- The last entry that said that the account is active: a deletion before it that has not been carried out does not count.
ALTER TABLE penstock.repos ADD COLUMN IF NOT EXISTS returned_entry text COLLATE "C";

-- Accounts that an event says are gone, until it is known that they are and, where they are deleted, until their rows may go.
-- `entry` and `status` are of the last such event, `deleted_entry` is the last deletion. `host` is where the account is, empty where
-- that is still to be found out; `due` is when the next step is.
CREATE TABLE IF NOT EXISTS penstock.account_claims (
  did text COLLATE "C" PRIMARY KEY,
  entry text COLLATE "C" NOT NULL,
  status text,
  deleted_entry text COLLATE "C",
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  host text COLLATE "C" NOT NULL DEFAULT '',
  due timestamptz NOT NULL DEFAULT clock_timestamp(),
  asked_at timestamptz,
  attempts int NOT NULL DEFAULT 0,
  confirmed_at timestamptz,
  hidden bool NOT NULL DEFAULT false,
  error text
);
CREATE INDEX IF NOT EXISTS account_claims_due ON penstock.account_claims (due);
CREATE INDEX IF NOT EXISTS account_claims_host ON penstock.account_claims (host, due);

-- Accounts whose handle may have changed, or did not lead back to them when it was last checked; only where identities are resolved.
CREATE TABLE IF NOT EXISTS penstock.handle_checks (
  did text COLLATE "C" PRIMARY KEY,
  entry text COLLATE "C" NOT NULL,
  due timestamptz NOT NULL DEFAULT clock_timestamp(),
  checked_at timestamptz,
  attempts int NOT NULL DEFAULT 0,
  error text
);
CREATE INDEX IF NOT EXISTS handle_checks_due ON penstock.handle_checks (due);

-- Who is at work on a repair, until `lease`, and which backfill it is of.
ALTER TABLE penstock.repairs ADD COLUMN IF NOT EXISTS holder text, ADD COLUMN IF NOT EXISTS backfill text COLLATE "C";
CREATE INDEX IF NOT EXISTS repairs_backfill ON penstock.repairs (backfill) WHERE backfill IS NOT NULL;

-- Repos whose last repair was given up, and why; gone once a repair succeeds. Only the newest are kept.
CREATE TABLE IF NOT EXISTS penstock.unhealed (
  did text COLLATE "C" PRIMARY KEY,
  reason text COLLATE "C" NOT NULL,
  word text COLLATE "C" NOT NULL,
  error text NOT NULL,
  backfill text COLLATE "C",
  attempts int NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS unhealed_at ON penstock.unhealed (at);

-- When a repo's rows were last known to be those that its host has, and at which of its revs.
ALTER TABLE penstock.repos ADD COLUMN IF NOT EXISTS proven_at timestamptz, ADD COLUMN IF NOT EXISTS proven_rev varchar(64) COLLATE "C";
CREATE INDEX IF NOT EXISTS repos_proven ON penstock.repos (proven_at NULLS FIRST, did);

-- Backfills: what they cover, how far their listing is (`cursor`), and what came of it. `next_at` is when the next repo may begin
-- where there is a rate; `lease` and `holder` are of who lists. `pace` is how much was done at the beginning of each of the last
-- minutes.
CREATE TABLE IF NOT EXISTS penstock.backfills (
  name text COLLATE "C" PRIMARY KEY,
  scope jsonb NOT NULL,
  relay text,
  rate double precision,
  parallelism int,
  priority smallint NOT NULL DEFAULT 0,
  state text COLLATE "C" NOT NULL DEFAULT 'listing',
  suspended bool NOT NULL DEFAULT false,
  cursor text,
  listed bigint NOT NULL DEFAULT 0,
  total bigint,
  done bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  records bigint NOT NULL DEFAULT 0,
  pace jsonb,
  next_at timestamptz,
  lease timestamptz,
  holder text,
  attempts int NOT NULL DEFAULT 0,
  next_list_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz,
  error text
) WITH (fillfactor = 50);

-- Why a backfill reads repos, which is the reason of their repairs: 'backfill' where somebody asked for it. `filter` tells the rules
-- that let in what it reads: by others, healers read nothing of it. `verify` says that only what a signature proves is written. With
-- `since` it reads only what changed in a gap: repos with a later rev than ours, and of those that are not known, those that changed since.
ALTER TABLE penstock.backfills ADD COLUMN IF NOT EXISTS reason text COLLATE "C" NOT NULL DEFAULT 'backfill',
  ADD COLUMN IF NOT EXISTS filter text COLLATE "C", ADD COLUMN IF NOT EXISTS verify bool NOT NULL DEFAULT false,
  ADD COLUMN IF NOT EXISTS since text COLLATE "C";

-- Whether an audit compares all records of the repo, or is content with the root of its tree where that proves it equal.
ALTER TABLE penstock.repairs ADD COLUMN IF NOT EXISTS whole bool NOT NULL DEFAULT true;
