-- Brings what accounts did with posts to what the rows say. Flags of the AppView stay as they are.
-- $1, $2 accounts and posts. Returns how many rows were written or removed.
WITH due AS (
  SELECT u.viewer, u.post, (SELECT l.uri FROM likes AS l WHERE l.user_did = u.viewer AND l.post_uri = u.post) AS liked,
      (SELECT r.uri FROM reposts AS r WHERE r.user_did = u.viewer AND r.post_uri = u.post) AS reposted,
      EXISTS (SELECT FROM bookmarks AS b WHERE b.user_did = u.viewer AND b.post_uri = u.post OFFSET 0) AS bookmarked
    FROM unnest($1::text[], $2::text[]) AS u (viewer, post)
), written AS (
  INSERT INTO post_viewer_states AS s (post_uri, viewer_did, like_uri, repost_uri, bookmarked)
  SELECT post, viewer, liked, reposted, bookmarked FROM due WHERE coalesce(liked, reposted) IS NOT NULL OR bookmarked
  ON CONFLICT (post_uri, viewer_did) DO UPDATE SET like_uri = excluded.like_uri, repost_uri = excluded.repost_uri,
      bookmarked = excluded.bookmarked, updated_at = now()
    WHERE (s.like_uri, s.repost_uri, s.bookmarked) IS DISTINCT FROM (excluded.like_uri, excluded.repost_uri, excluded.bookmarked)
  RETURNING 1
), gone AS (
  DELETE FROM post_viewer_states AS s USING due AS d
   WHERE s.post_uri = d.post AND s.viewer_did = d.viewer AND coalesce(d.liked, d.reposted) IS NULL AND NOT d.bookmarked
     AND NOT (s.thread_muted OR s.reply_disabled OR s.embedding_disabled OR s.pinned)
  RETURNING 1
), cleared AS (
  UPDATE post_viewer_states AS s SET like_uri = NULL, repost_uri = NULL, bookmarked = false, updated_at = now() FROM due AS d
   WHERE s.post_uri = d.post AND s.viewer_did = d.viewer AND coalesce(d.liked, d.reposted) IS NULL AND NOT d.bookmarked
     AND (s.thread_muted OR s.reply_disabled OR s.embedding_disabled OR s.pinned)
     AND (coalesce(s.like_uri, s.repost_uri) IS NOT NULL OR s.bookmarked)
  RETURNING 1
)
SELECT (SELECT count(*) FROM written) + (SELECT count(*) FROM gone) + (SELECT count(*) FROM cleared)
