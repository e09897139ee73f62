-- What is Penstock's own: all of it in a schema of its own, because the AppView's schema tool takes everything in `public`
-- for its own to keep or to drop.

CREATE SCHEMA IF NOT EXISTS penstock;

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
CREATE INDEX IF NOT EXISTS shadowed_pair ON penstock.shadowed (key_b, key_a, kind);
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
