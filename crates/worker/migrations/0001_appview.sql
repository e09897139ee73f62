-- The AppView's tables, each made only where it is missing: on a database that the AppView made, nothing here changes
-- anything. Its schema tool (`drizzle-kit push`) runs at each start of the AppView and must find nothing to change, so
-- columns, types, defaults and the names of indexes and constraints are exactly its own, and no table stands here that it
-- does not know. Its other tables, `user_settings` with them, are left to it.

DO $$
BEGIN

IF to_regclass('users') IS NULL THEN
  CREATE TABLE users (
    did varchar(255) NOT NULL,
    handle varchar(255) NOT NULL,
    display_name varchar(255),
    avatar_url text,
    banner_url text,
    description text,
    profile_record jsonb,
    pinned_post jsonb,
    search_vector tsvector,
    created_at timestamp NOT NULL DEFAULT now(),
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (did)
  );
  CREATE INDEX idx_users_handle ON users (handle);
  CREATE INDEX idx_users_created_at ON users (created_at);
  CREATE INDEX idx_users_search_vector ON users USING gin (search_vector);
END IF;

IF to_regclass('posts') IS NULL THEN
  CREATE TABLE posts (
    uri varchar(512) NOT NULL,
    cid varchar(255) NOT NULL,
    author_did varchar(255) NOT NULL,
    text text NOT NULL,
    langs jsonb,
    parent_uri varchar(512),
    parent_cid varchar(255),
    root_uri varchar(512),
    root_cid varchar(255),
    embed jsonb,
    facets jsonb,
    violates_thread_gate bool NOT NULL DEFAULT false,
    violates_embedding_rules bool NOT NULL DEFAULT false,
    has_thread_gate bool NOT NULL DEFAULT false,
    has_post_gate bool NOT NULL DEFAULT false,
    tags jsonb NOT NULL DEFAULT '[]',
    search_vector tsvector,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    commit_time timestamp,
    commit_seq varchar(32),
    commit_rev varchar(64),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_posts_author_did ON posts (author_did);
  CREATE INDEX idx_posts_indexed_at ON posts (indexed_at);
  CREATE INDEX idx_posts_created_at_author ON posts (created_at DESC NULLS LAST, author_did);
  CREATE INDEX idx_posts_parent_uri ON posts (parent_uri);
  CREATE INDEX idx_posts_root_uri ON posts (root_uri);
  CREATE INDEX idx_posts_search_vector ON posts USING gin (search_vector);
  CREATE INDEX idx_posts_commit_seq_time ON posts (commit_seq, commit_time);
END IF;

IF to_regclass('post_aggregations') IS NULL THEN
  CREATE TABLE post_aggregations (
    post_uri varchar(512) NOT NULL,
    like_count int NOT NULL DEFAULT 0,
    repost_count int NOT NULL DEFAULT 0,
    reply_count int NOT NULL DEFAULT 0,
    bookmark_count int NOT NULL DEFAULT 0,
    quote_count int NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (post_uri)
  );
  CREATE INDEX idx_post_aggregations_like_count ON post_aggregations (like_count);
  CREATE INDEX idx_post_aggregations_repost_count ON post_aggregations (repost_count);
  CREATE INDEX idx_post_aggregations_reply_count ON post_aggregations (reply_count);
  CREATE INDEX idx_post_aggregations_bookmark_count ON post_aggregations (bookmark_count);
  CREATE INDEX idx_post_aggregations_quote_count ON post_aggregations (quote_count);
END IF;

IF to_regclass('feed_items') IS NULL THEN
  CREATE TABLE feed_items (
    uri varchar(512) NOT NULL,
    post_uri varchar(512) NOT NULL,
    originator_did varchar(255) NOT NULL,
    type varchar(32) NOT NULL,
    sort_at timestamp NOT NULL,
    cid varchar(255) NOT NULL,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_feed_items_originator ON feed_items (originator_did);
  CREATE INDEX idx_feed_items_post ON feed_items (post_uri);
  CREATE INDEX idx_feed_items_sort_at ON feed_items (sort_at);
  CREATE INDEX idx_feed_items_type ON feed_items (type);
  CREATE INDEX idx_feed_items_originator_sort ON feed_items (originator_did, sort_at DESC NULLS LAST);
END IF;

IF to_regclass('likes') IS NULL THEN
  CREATE TABLE likes (
    uri varchar(512) NOT NULL,
    user_did varchar(255) NOT NULL,
    post_uri varchar(512) NOT NULL,
    subject_cid varchar(255),
    via jsonb,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    commit_time timestamp,
    commit_seq varchar(32),
    commit_rev varchar(64),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_likes_user_did ON likes (user_did);
  CREATE INDEX idx_likes_post_uri ON likes (post_uri);
  CREATE UNIQUE INDEX unique_like_user_post ON likes (user_did, post_uri);
END IF;

IF to_regclass('reposts') IS NULL THEN
  CREATE TABLE reposts (
    uri varchar(512) NOT NULL,
    user_did varchar(255) NOT NULL,
    post_uri varchar(512) NOT NULL,
    subject_cid varchar(255),
    via jsonb,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    commit_time timestamp,
    commit_seq varchar(32),
    commit_rev varchar(64),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_reposts_user_did ON reposts (user_did);
  CREATE INDEX idx_reposts_post_uri ON reposts (post_uri);
  CREATE UNIQUE INDEX unique_repost_user_post ON reposts (user_did, post_uri);
END IF;

IF to_regclass('bookmarks') IS NULL THEN
  CREATE TABLE bookmarks (
    uri varchar(512) NOT NULL,
    user_did varchar(255) NOT NULL,
    post_uri varchar(512) NOT NULL,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_bookmarks_user_did ON bookmarks (user_did);
  CREATE INDEX idx_bookmarks_post_uri ON bookmarks (post_uri);
  CREATE UNIQUE INDEX unique_bookmark_user_post ON bookmarks (user_did, post_uri);
END IF;

IF to_regclass('follows') IS NULL THEN
  CREATE TABLE follows (
    uri varchar(512) NOT NULL,
    follower_did varchar(255) NOT NULL,
    following_did varchar(255) NOT NULL,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    commit_time timestamp,
    commit_seq varchar(32),
    commit_rev varchar(64),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_follows_follower ON follows (follower_did);
  CREATE INDEX idx_follows_following ON follows (following_did);
  CREATE UNIQUE INDEX unique_follow_follower_following ON follows (follower_did, following_did);
END IF;

IF to_regclass('blocks') IS NULL THEN
  CREATE TABLE blocks (
    uri varchar(512) NOT NULL,
    blocker_did varchar(255) NOT NULL,
    blocked_did varchar(255) NOT NULL,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    commit_time timestamp,
    commit_seq varchar(32),
    commit_rev varchar(64),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_blocks_blocker ON blocks (blocker_did);
  CREATE INDEX idx_blocks_blocked ON blocks (blocked_did);
  CREATE UNIQUE INDEX unique_block_blocker_blocked ON blocks (blocker_did, blocked_did);
END IF;

IF to_regclass('lists') IS NULL THEN
  CREATE TABLE lists (
    uri varchar(512) NOT NULL,
    cid varchar(255) NOT NULL,
    creator_did varchar(255) NOT NULL,
    name varchar(255) NOT NULL,
    purpose varchar(64) NOT NULL,
    description text,
    avatar_url text,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_lists_creator ON lists (creator_did);
  CREATE INDEX idx_lists_purpose ON lists (purpose);
  CREATE INDEX idx_lists_indexed_at ON lists (indexed_at);
END IF;

IF to_regclass('list_items') IS NULL THEN
  CREATE TABLE list_items (
    uri varchar(512) NOT NULL,
    cid varchar(255) NOT NULL,
    list_uri varchar(512) NOT NULL,
    subject_did varchar(255) NOT NULL,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_list_items_list ON list_items (list_uri);
  CREATE INDEX idx_list_items_subject ON list_items (subject_did);
  CREATE UNIQUE INDEX unique_list_item ON list_items (list_uri, subject_did);
END IF;

IF to_regclass('list_blocks') IS NULL THEN
  CREATE TABLE list_blocks (
    uri varchar(512) NOT NULL,
    blocker_did varchar(255) NOT NULL,
    list_uri varchar(512) NOT NULL,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_list_blocks_blocker ON list_blocks (blocker_did);
  CREATE INDEX idx_list_blocks_list ON list_blocks (list_uri);
  CREATE UNIQUE INDEX unique_list_block ON list_blocks (blocker_did, list_uri);
END IF;

IF to_regclass('feed_generators') IS NULL THEN
  CREATE TABLE feed_generators (
    uri varchar(512) NOT NULL,
    cid varchar(255) NOT NULL,
    creator_did varchar(255) NOT NULL,
    did varchar(255) NOT NULL,
    display_name varchar(255) NOT NULL,
    description text,
    avatar_url text,
    like_count int NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_feed_generators_creator ON feed_generators (creator_did);
  CREATE INDEX idx_feed_generators_did ON feed_generators (did);
  CREATE INDEX idx_feed_generators_like_count ON feed_generators (like_count);
  CREATE INDEX idx_feed_generators_indexed_at ON feed_generators (indexed_at);
END IF;

IF to_regclass('starter_packs') IS NULL THEN
  CREATE TABLE starter_packs (
    uri varchar(512) NOT NULL,
    cid varchar(255) NOT NULL,
    creator_did varchar(255) NOT NULL,
    name varchar(255) NOT NULL,
    description text,
    list_uri varchar(512),
    feeds jsonb NOT NULL DEFAULT '[]',
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_starter_packs_creator ON starter_packs (creator_did);
  CREATE INDEX idx_starter_packs_list ON starter_packs (list_uri);
  CREATE INDEX idx_starter_packs_indexed_at ON starter_packs (indexed_at);
END IF;

IF to_regclass('labeler_services') IS NULL THEN
  CREATE TABLE labeler_services (
    uri varchar(512) NOT NULL,
    cid varchar(255) NOT NULL,
    creator_did varchar(255) NOT NULL,
    policies jsonb NOT NULL,
    like_count int NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_labeler_services_creator ON labeler_services (creator_did);
  CREATE INDEX idx_labeler_services_like_count ON labeler_services (like_count);
  CREATE INDEX idx_labeler_services_indexed_at ON labeler_services (indexed_at);
END IF;

IF to_regclass('labels') IS NULL THEN
  CREATE TABLE labels (
    uri varchar(512) NOT NULL,
    src varchar(255) NOT NULL,
    subject varchar(512) NOT NULL,
    val varchar(128) NOT NULL,
    neg bool NOT NULL DEFAULT false,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_labels_subject ON labels (subject);
  CREATE INDEX idx_labels_src ON labels (src);
  CREATE INDEX idx_labels_val ON labels (val);
  CREATE INDEX idx_labels_subject_val ON labels (subject, val);
END IF;

IF to_regclass('label_events') IS NULL THEN
  CREATE TABLE label_events (
    id serial,
    label_uri varchar(512) NOT NULL,
    action varchar(32) NOT NULL,
    created_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (id),
    CONSTRAINT label_events_label_uri_labels_uri_fk FOREIGN KEY (label_uri) REFERENCES labels (uri) ON DELETE CASCADE
  );
  CREATE INDEX idx_label_events_created_at ON label_events (created_at);
  CREATE INDEX idx_label_events_label_uri ON label_events (label_uri);
END IF;

IF to_regclass('verifications') IS NULL THEN
  CREATE TABLE verifications (
    uri varchar(512) NOT NULL,
    cid varchar(255) NOT NULL,
    subject_did varchar(255) NOT NULL,
    handle varchar(255) NOT NULL,
    verified_at timestamp NOT NULL,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_verifications_subject ON verifications (subject_did);
  CREATE INDEX idx_verifications_handle ON verifications (handle);
  CREATE UNIQUE INDEX unique_verification_subject ON verifications (subject_did);
END IF;

IF to_regclass('generic_records') IS NULL THEN
  CREATE TABLE generic_records (
    uri varchar(512) NOT NULL,
    cid varchar(255) NOT NULL,
    author_did varchar(255) NOT NULL,
    record_type varchar(255) NOT NULL,
    record jsonb NOT NULL,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_generic_records_author ON generic_records (author_did);
  CREATE INDEX idx_generic_records_type ON generic_records (record_type);
  CREATE INDEX idx_generic_records_created_at ON generic_records (created_at);
END IF;

IF to_regclass('thread_gates') IS NULL THEN
  CREATE TABLE thread_gates (
    post_uri varchar(512) NOT NULL,
    owner_did varchar(255) NOT NULL,
    allow_mentions bool NOT NULL DEFAULT true,
    allow_following bool NOT NULL DEFAULT true,
    allow_list_members bool NOT NULL DEFAULT false,
    allow_list_uris jsonb NOT NULL DEFAULT '[]',
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (post_uri)
  );
  CREATE INDEX idx_thread_gates_owner ON thread_gates (owner_did);
END IF;

IF to_regclass('post_gates') IS NULL THEN
  CREATE TABLE post_gates (
    post_uri varchar(512) NOT NULL,
    created_at timestamp NOT NULL DEFAULT now(),
    embedding_rules jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (post_uri)
  );
  CREATE INDEX idx_post_gates_created_at ON post_gates (created_at);
END IF;

IF to_regclass('quotes') IS NULL THEN
  CREATE TABLE quotes (
    uri varchar(512) NOT NULL,
    cid varchar(255) NOT NULL,
    post_uri varchar(512) NOT NULL,
    quoted_uri varchar(512) NOT NULL,
    quoted_cid varchar(255),
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (uri)
  );
  CREATE INDEX idx_quotes_post ON quotes (post_uri);
  CREATE INDEX idx_quotes_quoted ON quotes (quoted_uri);
  CREATE UNIQUE INDEX unique_quote_post_quoted ON quotes (post_uri, quoted_uri);
END IF;

IF to_regclass('post_viewer_states') IS NULL THEN
  CREATE TABLE post_viewer_states (
    post_uri varchar(512) NOT NULL,
    viewer_did varchar(255) NOT NULL,
    like_uri varchar(512),
    repost_uri varchar(512),
    bookmarked bool NOT NULL DEFAULT false,
    thread_muted bool NOT NULL DEFAULT false,
    reply_disabled bool NOT NULL DEFAULT false,
    embedding_disabled bool NOT NULL DEFAULT false,
    pinned bool NOT NULL DEFAULT false,
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now()
  );
  CREATE UNIQUE INDEX idx_post_viewer_states_post_viewer ON post_viewer_states (post_uri, viewer_did);
  CREATE INDEX idx_post_viewer_states_post ON post_viewer_states (post_uri);
  CREATE INDEX idx_post_viewer_states_viewer ON post_viewer_states (viewer_did);
END IF;

IF to_regclass('thread_contexts') IS NULL THEN
  CREATE TABLE thread_contexts (
    post_uri varchar(512) NOT NULL,
    root_author_like_uri varchar(512),
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (post_uri)
  );
  CREATE INDEX idx_thread_contexts_root_author_like ON thread_contexts (root_author_like_uri);
END IF;

IF to_regclass('notifications') IS NULL THEN
  CREATE TABLE notifications (
    id serial,
    uri varchar(512) NOT NULL,
    recipient_did varchar(255) NOT NULL,
    author_did varchar(255) NOT NULL,
    reason varchar(64) NOT NULL,
    reason_subject varchar(512),
    cid varchar(255),
    is_read bool NOT NULL DEFAULT false,
    created_at timestamp NOT NULL,
    indexed_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (id),
    CONSTRAINT notifications_uri_unique UNIQUE (uri)
  );
  CREATE INDEX idx_notifications_recipient ON notifications (recipient_did);
  CREATE INDEX idx_notifications_recipient_read ON notifications (recipient_did, is_read);
  CREATE INDEX idx_notifications_recipient_created ON notifications (recipient_did, created_at DESC NULLS LAST);
  CREATE INDEX idx_notifications_created_at ON notifications (created_at);
  CREATE INDEX idx_notifications_indexed_at ON notifications (indexed_at);
END IF;

IF to_regclass('firehose_cursor') IS NULL THEN
  CREATE TABLE firehose_cursor (
    id serial,
    service varchar(255) NOT NULL,
    cursor text,
    last_event_time timestamp,
    updated_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (id),
    CONSTRAINT firehose_cursor_service_unique UNIQUE (service)
  );
  CREATE UNIQUE INDEX idx_firehose_cursor_service ON firehose_cursor (service);
END IF;

END
$$;

-- A role named like our schema has that schema first in its search path: an AppView that connects as such a role would make
-- its further tables there, and its schema tool, which looks for them in `public`, would try again at each start. A path
-- that somebody has set stays.
DO $$
DECLARE
  namesake CONSTANT oid := (SELECT oid FROM pg_roles WHERE rolname = 'penstock');
  here CONSTANT oid := (SELECT oid FROM pg_database WHERE datname = current_database());
BEGIN
  IF namesake IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
     WHERE setrole IN (0, namesake) AND setdatabase IN (0, here) AND setting LIKE 'search\_path=%'
  ) THEN
    EXECUTE format('ALTER ROLE penstock IN DATABASE %I SET search_path = public', current_database());
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE WARNING 'role penstock would make tables in schema penstock: set its search_path to public';
END
$$;
