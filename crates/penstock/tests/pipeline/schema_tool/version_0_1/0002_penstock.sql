-- What is Penstock's own. Columns are nullable and without a default, so that adding them to a big table takes no time.
-- Texts of our own tables sort bytewise, which is what we compare by and faster than any language's order.
-- `entry_id` and the columns named like it hold stream IDs as text that sorts bytewise (see store/version.rs).

ALTER TABLE thread_gates ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE post_gates ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE posts ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE likes ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE reposts ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE bookmarks ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE follows ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE blocks ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE lists ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE list_items ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE list_blocks ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE feed_generators ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE starter_packs ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE labeler_services ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE labels ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE verifications ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE generic_records ADD COLUMN IF NOT EXISTS commit_rev varchar(64), ADD COLUMN IF NOT EXISTS entry_id text COLLATE "C";
ALTER TABLE users ADD COLUMN IF NOT EXISTS active bool, ADD COLUMN IF NOT EXISTS status text;
ALTER TABLE messages ADD COLUMN IF NOT EXISTS tracking_id text, ADD COLUMN IF NOT EXISTS dedupe_key text;
CREATE UNIQUE INDEX IF NOT EXISTS idx_messages_dedupe_key ON messages (dedupe_key);

-- One row a repo: what batches lock, and what guards its account; and one, named `subject:` and the DID, for each account
-- that somebody verified. Room in the pages lets updates stay where they are.
CREATE TABLE IF NOT EXISTS penstock_repos (
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
CREATE INDEX IF NOT EXISTS idx_penstock_repos_unswept ON penstock_repos (did)
  WHERE deleted_through IS NOT NULL AND (swept_through IS NULL OR swept_through < deleted_through);

-- Records that are gone, for as long as an older event of theirs could still come.
CREATE TABLE IF NOT EXISTS penstock_tombstones (
  uri varchar(512) COLLATE "C" PRIMARY KEY,
  commit_rev varchar(64) COLLATE "C",
  entry_id text COLLATE "C"
);
CREATE INDEX IF NOT EXISTS idx_penstock_tombstones_entry_id ON penstock_tombstones (entry_id);

-- Records whose place in their table another one holds: `kind` is the table, the keys are its unique columns.
CREATE TABLE IF NOT EXISTS penstock_shadowed (
  uri varchar(512) COLLATE "C" PRIMARY KEY,
  repo varchar(255) COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  key_a text COLLATE "C" NOT NULL,
  key_b text COLLATE "C" NOT NULL,
  commit_rev varchar(64) COLLATE "C",
  entry_id text COLLATE "C",
  row jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_penstock_shadowed_pair ON penstock_shadowed (key_b, key_a, kind);
CREATE INDEX IF NOT EXISTS idx_penstock_shadowed_repo ON penstock_shadowed (repo);

-- What each worker has written in total, for `db:record_counts`.
CREATE TABLE IF NOT EXISTS penstock_counts (
  worker text COLLATE "C",
  field text COLLATE "C",
  total bigint NOT NULL,
  PRIMARY KEY (worker, field)
) WITH (fillfactor = 50);

-- Up to where each host's events are surely written, should Redis be lost.
CREATE TABLE IF NOT EXISTS penstock_checkpoint (
  host text COLLATE "C" PRIMARY KEY,
  seq bigint NOT NULL,
  stream_id text NOT NULL,
  updated_at timestamp NOT NULL DEFAULT now()
);

-- Entries that failed for good; `data` is the entry's, byte for byte.
CREATE TABLE IF NOT EXISTS penstock_dead_letters (
  orig_id text COLLATE "C" PRIMARY KEY,
  kind text COLLATE "C" NOT NULL,
  data bytea NOT NULL,
  seq text NOT NULL,
  deliveries bigint NOT NULL,
  error text NOT NULL,
  consumer text NOT NULL,
  created_at timestamp NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_penstock_dead_letters_created_at ON penstock_dead_letters (created_at);

CREATE TABLE IF NOT EXISTS penstock_meta (
  key text COLLATE "C" PRIMARY KEY,
  value text NOT NULL
);
INSERT INTO penstock_meta (key, value) VALUES ('incarnation', gen_random_uuid()) ON CONFLICT (key) DO NOTHING;
