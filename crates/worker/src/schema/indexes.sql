-- Indexes and constraints that Penstock 0.1 made under names and in shapes of its own, on tables that it made itself: they get the
-- AppView's, because its schema tool would make them at its next start, and asks before it adds a unique constraint. A table that
-- the AppView made has none of the old names, so nothing here touches it. A transaction for each block.

DO $$
DECLARE
  old text;
  new text;
BEGIN
  FOR old, new IN VALUES
    ('idx_feed_items_post_uri', 'idx_feed_items_post'),
    ('idx_likes_user_did_post_uri', 'unique_like_user_post'),
    ('idx_reposts_user_did_post_uri', 'unique_repost_user_post'),
    ('idx_bookmarks_user_did_post_uri', 'unique_bookmark_user_post'),
    ('idx_follows_follower_did_following_did', 'unique_follow_follower_following'),
    ('idx_blocks_blocker_did_blocked_did', 'unique_block_blocker_blocked'),
    ('idx_lists_creator_did', 'idx_lists_creator'),
    ('idx_list_items_subject_did', 'idx_list_items_subject'),
    ('idx_list_items_list_uri_subject_did', 'unique_list_item'),
    ('idx_list_blocks_list_uri', 'idx_list_blocks_list'),
    ('idx_list_blocks_blocker_did_list_uri', 'unique_list_block'),
    ('idx_feed_generators_creator_did', 'idx_feed_generators_creator'),
    ('idx_starter_packs_creator_did', 'idx_starter_packs_creator'),
    ('idx_starter_packs_list_uri', 'idx_starter_packs_list'),
    ('idx_labeler_services_creator_did', 'idx_labeler_services_creator'),
    ('idx_verifications_subject_did', 'unique_verification_subject'),
    ('idx_generic_records_record_type', 'idx_generic_records_type'),
    ('idx_thread_gates_owner_did', 'idx_thread_gates_owner'),
    ('idx_quotes_post_uri_quoted_uri', 'unique_quote_post_quoted'),
    ('idx_thread_contexts_root_author_like_uri', 'idx_thread_contexts_root_author_like')
  LOOP
    IF to_regclass(old) IS NOT NULL AND to_regclass(new) IS NULL THEN
      EXECUTE format('ALTER INDEX %I RENAME TO %I', old, new);
    END IF;
  END LOOP;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_notifications_uri') IS NOT NULL THEN
    ALTER TABLE notifications ADD CONSTRAINT notifications_uri_unique UNIQUE USING INDEX idx_notifications_uri;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_posts_author_did_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_posts_author_did ON posts (author_did);
    CREATE INDEX IF NOT EXISTS idx_posts_created_at_author ON posts (created_at DESC NULLS LAST, author_did);
    CREATE INDEX IF NOT EXISTS idx_posts_commit_seq_time ON posts (commit_seq, commit_time);
    DROP INDEX IF EXISTS idx_posts_author_did_created_at, idx_posts_cid, idx_posts_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_feed_items_originator_did_sort_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_feed_items_originator ON feed_items (originator_did);
    CREATE INDEX IF NOT EXISTS idx_feed_items_type ON feed_items (type);
    CREATE INDEX IF NOT EXISTS idx_feed_items_originator_sort ON feed_items (originator_did, sort_at DESC NULLS LAST);
    DROP INDEX IF EXISTS idx_feed_items_originator_did_sort_at, idx_feed_items_type_sort_at,
      idx_feed_items_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_likes_post_uri_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_likes_user_did ON likes (user_did);
    CREATE INDEX IF NOT EXISTS idx_likes_post_uri ON likes (post_uri);
    DROP INDEX IF EXISTS idx_likes_post_uri_created_at, idx_likes_user_did_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_reposts_post_uri_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_reposts_user_did ON reposts (user_did);
    CREATE INDEX IF NOT EXISTS idx_reposts_post_uri ON reposts (post_uri);
    DROP INDEX IF EXISTS idx_reposts_post_uri_created_at, idx_reposts_user_did_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_bookmarks_user_did_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_bookmarks_user_did ON bookmarks (user_did);
    DROP INDEX IF EXISTS idx_bookmarks_user_did_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_follows_following_did_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_follows_follower ON follows (follower_did);
    CREATE INDEX IF NOT EXISTS idx_follows_following ON follows (following_did);
    DROP INDEX IF EXISTS idx_follows_following_did_created_at, idx_follows_follower_did_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_blocks_blocked_did_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_blocks_blocker ON blocks (blocker_did);
    CREATE INDEX IF NOT EXISTS idx_blocks_blocked ON blocks (blocked_did);
    DROP INDEX IF EXISTS idx_blocks_blocked_did_created_at, idx_blocks_blocker_did_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_lists_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_lists_indexed_at ON lists (indexed_at);
    DROP INDEX IF EXISTS idx_lists_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_list_items_list_uri_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_list_items_list ON list_items (list_uri);
    DROP INDEX IF EXISTS idx_list_items_list_uri_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_list_blocks_blocker_did_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_list_blocks_blocker ON list_blocks (blocker_did);
    DROP INDEX IF EXISTS idx_list_blocks_blocker_did_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_feed_generators_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_feed_generators_indexed_at ON feed_generators (indexed_at);
    DROP INDEX IF EXISTS idx_feed_generators_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_starter_packs_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_starter_packs_indexed_at ON starter_packs (indexed_at);
    DROP INDEX IF EXISTS idx_starter_packs_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_labeler_services_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_labeler_services_indexed_at ON labeler_services (indexed_at);
    DROP INDEX IF EXISTS idx_labeler_services_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_labels_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_labels_subject_val ON labels (subject, val);
    DROP INDEX IF EXISTS idx_labels_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_verifications_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_verifications_subject ON verifications (subject_did);
    DROP INDEX IF EXISTS idx_verifications_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_generic_records_author_did_record_type') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_generic_records_author ON generic_records (author_did);
    DROP INDEX IF EXISTS idx_generic_records_author_did_record_type;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_quotes_quoted_uri_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_quotes_post ON quotes (post_uri);
    CREATE INDEX IF NOT EXISTS idx_quotes_quoted ON quotes (quoted_uri);
    DROP INDEX IF EXISTS idx_quotes_quoted_uri_created_at, idx_quotes_created_at;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_notifications_recipient_did_created_at') IS NOT NULL THEN
    CREATE INDEX IF NOT EXISTS idx_notifications_recipient ON notifications (recipient_did);
    CREATE INDEX IF NOT EXISTS idx_notifications_recipient_read ON notifications (recipient_did, is_read);
    CREATE INDEX IF NOT EXISTS idx_notifications_recipient_created ON notifications (recipient_did, created_at DESC NULLS LAST);
    CREATE INDEX IF NOT EXISTS idx_notifications_indexed_at ON notifications (indexed_at);
    DROP INDEX IF EXISTS idx_notifications_recipient_did_created_at, idx_notifications_author_did,
      idx_notifications_reason_subject, idx_notifications_unread;
  END IF;
END $$;

DO $$ BEGIN
  IF to_regclass('idx_firehose_cursor_updated_at') IS NOT NULL THEN
    ALTER TABLE firehose_cursor ADD CONSTRAINT firehose_cursor_service_unique UNIQUE (service);
    DROP INDEX IF EXISTS idx_firehose_cursor_updated_at;
  END IF;
END $$;

DO $$
DECLARE
  counted text;
  name text;
BEGIN
  FOREACH counted IN ARRAY ARRAY['like_count', 'repost_count', 'reply_count', 'bookmark_count', 'quote_count'] LOOP
    name := 'idx_post_aggregations_' || counted;
    -- In 0.1 it had only the rows above 0; the tool compares names, not predicates.
    IF EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(name) AND indpred IS NOT NULL) THEN
      EXECUTE format('DROP INDEX %I', name);
      EXECUTE format('CREATE INDEX %I ON post_aggregations (%I)', name, counted);
    END IF;
  END LOOP;
END $$;
