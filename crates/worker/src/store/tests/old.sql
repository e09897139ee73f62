-- The second migration of Penstock 0.1, on the tables that the first one made; then what stood there.

CREATE TABLE messages (
  id bigserial,
  user_id int NOT NULL,
  channel_id int NOT NULL,
  content text NOT NULL,
  created_at timestamp NOT NULL,
  inserted_at timestamp NOT NULL DEFAULT now(),
  PRIMARY KEY (id)
);
CREATE TABLE penstock_migrations (version bigint PRIMARY KEY);
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

CREATE TABLE IF NOT EXISTS penstock_tombstones (
  uri varchar(512) COLLATE "C" PRIMARY KEY,
  commit_rev varchar(64) COLLATE "C",
  entry_id text COLLATE "C"
);
CREATE INDEX IF NOT EXISTS idx_penstock_tombstones_entry_id ON penstock_tombstones (entry_id);

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

CREATE TABLE IF NOT EXISTS penstock_counts (
  worker text COLLATE "C",
  field text COLLATE "C",
  total bigint NOT NULL,
  PRIMARY KEY (worker, field)
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS penstock_checkpoint (
  host text COLLATE "C" PRIMARY KEY,
  seq bigint NOT NULL,
  stream_id text NOT NULL,
  updated_at timestamp NOT NULL DEFAULT now()
);

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
-- Rows
INSERT INTO posts (uri, cid, author_did, text, created_at, commit_seq, commit_rev, entry_id) VALUES
  ('at://did:plc:a/app.bsky.feed.post/p', 'c', 'did:plc:a', 't', '2026-01-01', '9', '3b', '1782000000000-000002'),
  ('at://did:plc:a/app.bsky.feed.post/without', 'c', 'did:plc:a', 't', '2026-01-01', NULL, NULL, NULL);
INSERT INTO likes (uri, user_did, post_uri, created_at, commit_seq, commit_rev, entry_id) VALUES
  ('at://did:plc:a/app.bsky.feed.like/l', 'did:plc:a', 'at://did:plc:a/app.bsky.feed.post/p', '2026-01-01', '26512345678', '3b',
   '1782000000000-000003'),
  ('at://did:plc:b/app.bsky.feed.like/l', 'did:plc:b', 'at://did:plc:a/app.bsky.feed.post/p', '2026-01-01', '77', NULL, NULL);
INSERT INTO thread_gates (post_uri, owner_did, created_at, commit_rev, entry_id)
  VALUES ('at://did:plc:a/app.bsky.feed.post/p', 'did:plc:a', '2026-01-01', '3b', '1782000000000-000004');
INSERT INTO lists (uri, cid, creator_did, name, purpose, created_at, commit_rev, entry_id)
  VALUES ('at://did:plc:a/app.bsky.graph.list/l', 'c', 'did:plc:a', 'L', 'p', '2026-01-01', '3b', '!1782000000000-000005');
INSERT INTO starter_packs (uri, cid, creator_did, name, feeds, created_at)
  VALUES ('at://did:plc:b/app.bsky.graph.starterpack/s', 'c', 'did:plc:b', 'S', '[{"uri": "at://f/1"}, "at://f/2"]', '2026-01-01');
INSERT INTO users (did, handle, active) VALUES ('did:plc:a', 'a.example', true);
INSERT INTO post_aggregations (post_uri, like_count)
  VALUES ('at://did:plc:a/app.bsky.feed.post/p', 2), ('at://did:plc:b/app.bsky.feed.post/unseen', 5);
INSERT INTO messages (id, user_id, channel_id, content, created_at, tracking_id, dedupe_key)
  VALUES (7, 1, 1, 'm', '2026-01-01', 't', 'k'), (8, 1, 1, 'theirs', '2026-01-01', NULL, NULL);
INSERT INTO penstock_repos (did, rev, active) VALUES ('did:plc:a', '3b', true);
INSERT INTO penstock_tombstones VALUES ('at://did:plc:a/app.bsky.feed.like/gone', '3b', '1782000000000-000006');
INSERT INTO penstock_counts VALUES ('w1', 'post_aggregations', 10);
