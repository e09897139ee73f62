-- The AppView's tables. Each is made only where it is missing, with its indexes: on a database that the AppView made,
-- nothing here changes anything.

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
  CREATE INDEX idx_posts_author_did_created_at ON posts (author_did, created_at);
  CREATE INDEX idx_posts_parent_uri ON posts (parent_uri);
  CREATE INDEX idx_posts_root_uri ON posts (root_uri);
  CREATE INDEX idx_posts_cid ON posts (cid);
  CREATE INDEX idx_posts_created_at ON posts (created_at);
  CREATE INDEX idx_posts_indexed_at ON posts (indexed_at);
  CREATE INDEX idx_posts_search_vector ON posts USING gin (search_vector);
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
  CREATE INDEX idx_post_aggregations_like_count ON post_aggregations (like_count) WHERE like_count > 0;
  CREATE INDEX idx_post_aggregations_repost_count ON post_aggregations (repost_count) WHERE repost_count > 0;
  CREATE INDEX idx_post_aggregations_reply_count ON post_aggregations (reply_count) WHERE reply_count > 0;
  CREATE INDEX idx_post_aggregations_quote_count ON post_aggregations (quote_count) WHERE quote_count > 0;
  CREATE INDEX idx_post_aggregations_bookmark_count ON post_aggregations (bookmark_count) WHERE bookmark_count > 0;
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
  CREATE INDEX idx_feed_items_post_uri ON feed_items (post_uri);
  CREATE INDEX idx_feed_items_originator_did_sort_at ON feed_items (originator_did, sort_at);
  CREATE INDEX idx_feed_items_sort_at ON feed_items (sort_at);
  CREATE INDEX idx_feed_items_type_sort_at ON feed_items (type, sort_at);
  CREATE INDEX idx_feed_items_created_at ON feed_items (created_at);
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
  CREATE UNIQUE INDEX idx_likes_user_did_post_uri ON likes (user_did, post_uri);
  CREATE INDEX idx_likes_post_uri_created_at ON likes (post_uri, created_at);
  CREATE INDEX idx_likes_user_did_created_at ON likes (user_did, created_at);
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
  CREATE UNIQUE INDEX idx_reposts_user_did_post_uri ON reposts (user_did, post_uri);
  CREATE INDEX idx_reposts_post_uri_created_at ON reposts (post_uri, created_at);
  CREATE INDEX idx_reposts_user_did_created_at ON reposts (user_did, created_at);
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
  CREATE UNIQUE INDEX idx_bookmarks_user_did_post_uri ON bookmarks (user_did, post_uri);
  CREATE INDEX idx_bookmarks_post_uri ON bookmarks (post_uri);
  CREATE INDEX idx_bookmarks_user_did_created_at ON bookmarks (user_did, created_at);
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
  CREATE UNIQUE INDEX idx_follows_follower_did_following_did ON follows (follower_did, following_did);
  CREATE INDEX idx_follows_following_did_created_at ON follows (following_did, created_at);
  CREATE INDEX idx_follows_follower_did_created_at ON follows (follower_did, created_at);
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
  CREATE UNIQUE INDEX idx_blocks_blocker_did_blocked_did ON blocks (blocker_did, blocked_did);
  CREATE INDEX idx_blocks_blocked_did_created_at ON blocks (blocked_did, created_at);
  CREATE INDEX idx_blocks_blocker_did_created_at ON blocks (blocker_did, created_at);
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
  CREATE INDEX idx_lists_creator_did ON lists (creator_did);
  CREATE INDEX idx_lists_purpose ON lists (purpose);
  CREATE INDEX idx_lists_created_at ON lists (created_at);
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
  CREATE UNIQUE INDEX idx_list_items_list_uri_subject_did ON list_items (list_uri, subject_did);
  CREATE INDEX idx_list_items_subject_did ON list_items (subject_did);
  CREATE INDEX idx_list_items_list_uri_created_at ON list_items (list_uri, created_at);
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
  CREATE UNIQUE INDEX idx_list_blocks_blocker_did_list_uri ON list_blocks (blocker_did, list_uri);
  CREATE INDEX idx_list_blocks_list_uri ON list_blocks (list_uri);
  CREATE INDEX idx_list_blocks_blocker_did_created_at ON list_blocks (blocker_did, created_at);
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
  CREATE INDEX idx_feed_generators_creator_did ON feed_generators (creator_did);
  CREATE INDEX idx_feed_generators_did ON feed_generators (did);
  CREATE INDEX idx_feed_generators_like_count ON feed_generators (like_count);
  CREATE INDEX idx_feed_generators_created_at ON feed_generators (created_at);
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
  CREATE INDEX idx_starter_packs_creator_did ON starter_packs (creator_did);
  CREATE INDEX idx_starter_packs_list_uri ON starter_packs (list_uri);
  CREATE INDEX idx_starter_packs_created_at ON starter_packs (created_at);
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
  CREATE INDEX idx_labeler_services_creator_did ON labeler_services (creator_did);
  CREATE INDEX idx_labeler_services_like_count ON labeler_services (like_count);
  CREATE INDEX idx_labeler_services_created_at ON labeler_services (created_at);
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
  CREATE INDEX idx_labels_created_at ON labels (created_at);
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
  CREATE UNIQUE INDEX idx_verifications_subject_did ON verifications (subject_did);
  CREATE INDEX idx_verifications_handle ON verifications (handle);
  CREATE INDEX idx_verifications_created_at ON verifications (created_at);
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
  CREATE INDEX idx_generic_records_author_did_record_type ON generic_records (author_did, record_type);
  CREATE INDEX idx_generic_records_record_type ON generic_records (record_type);
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
  CREATE INDEX idx_thread_gates_owner_did ON thread_gates (owner_did);
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
  CREATE UNIQUE INDEX idx_quotes_post_uri_quoted_uri ON quotes (post_uri, quoted_uri);
  CREATE INDEX idx_quotes_quoted_uri_created_at ON quotes (quoted_uri, created_at);
  CREATE INDEX idx_quotes_created_at ON quotes (created_at);
END IF;

IF to_regclass('thread_contexts') IS NULL THEN
  CREATE TABLE thread_contexts (
    post_uri varchar(512) NOT NULL,
    root_author_like_uri varchar(512),
    created_at timestamp NOT NULL DEFAULT now(),
    updated_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (post_uri)
  );
  CREATE INDEX idx_thread_contexts_root_author_like_uri ON thread_contexts (root_author_like_uri);
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
    PRIMARY KEY (id)
  );
  CREATE UNIQUE INDEX idx_notifications_uri ON notifications (uri);
  CREATE INDEX idx_notifications_recipient_did_created_at ON notifications (recipient_did, created_at);
  CREATE INDEX idx_notifications_author_did ON notifications (author_did);
  CREATE INDEX idx_notifications_reason_subject ON notifications (reason_subject);
  CREATE INDEX idx_notifications_created_at ON notifications (created_at);
  CREATE INDEX idx_notifications_unread ON notifications (recipient_did) WHERE NOT is_read;
END IF;

IF to_regclass('firehose_cursor') IS NULL THEN
  CREATE TABLE firehose_cursor (
    id serial,
    service varchar(255) NOT NULL,
    cursor text,
    last_event_time timestamp,
    updated_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (id)
  );
  CREATE UNIQUE INDEX idx_firehose_cursor_service ON firehose_cursor (service);
  CREATE INDEX idx_firehose_cursor_updated_at ON firehose_cursor (updated_at);
END IF;

IF to_regclass('messages') IS NULL THEN
  CREATE TABLE messages (
    id bigserial,
    user_id int NOT NULL,
    channel_id int NOT NULL,
    content text NOT NULL,
    created_at timestamp NOT NULL,
    inserted_at timestamp NOT NULL DEFAULT now(),
    PRIMARY KEY (id)
  );
END IF;

END
$$;
