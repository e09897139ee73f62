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
  IF to_regclass('idx_firehose_cursor_updated_at') IS NOT NULL THEN
    ALTER TABLE firehose_cursor ADD CONSTRAINT firehose_cursor_service_unique UNIQUE (service);
    DROP INDEX IF EXISTS idx_firehose_cursor_updated_at;
  END IF;
END $$;
