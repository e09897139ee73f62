-- Brings the contexts of replies to what the rows say.
-- $1 posts that changed; $2, $3 accounts and the posts that they like or liked; $4 posts that came or went; $5 how many rows
-- the posts of $4 may touch at once. Returns how many rows $4 touched, and the posts whose context changed.
WITH touched AS (
  SELECT u.uri, false AS late FROM unnest($1::text[]) AS u (uri)
  UNION ALL
  -- Only a like of the one who began the thread counts.
  SELECT c.uri, false FROM unnest($2::text[], $3::text[]) AS u (viewer, post) JOIN posts AS c ON c.uri = u.post
   WHERE starts_with(c.root_uri, 'at://' || u.viewer || '/')
  UNION ALL (
    SELECT c.uri, true FROM unnest($4::text[]) AS u (uri) JOIN posts AS c ON c.root_uri = u.uri
     WHERE c.parent_uri IS NOT NULL AND EXISTS (SELECT FROM posts AS r WHERE r.uri = u.uri OFFSET 0)
       <> EXISTS (SELECT FROM thread_contexts AS t WHERE t.post_uri = c.uri OFFSET 0)
     LIMIT $5
  )
), due AS (
  SELECT t.uri, t.late, r.uri IS NOT NULL AS stands,
      (SELECT l.uri FROM likes AS l WHERE l.user_did = r.author_did AND l.post_uri = c.uri) AS liked
    FROM (SELECT uri COLLATE "C" AS uri, bool_and(late) AS late FROM touched GROUP BY 1) AS t
    -- Looked up by key: joined, a plan for empty tables would read all replies for each batch.
    LEFT JOIN LATERAL (SELECT p.uri, p.root_uri FROM posts AS p
                        WHERE p.uri = t.uri COLLATE "default" AND p.parent_uri IS NOT NULL OFFSET 0) AS c ON true
    LEFT JOIN LATERAL (SELECT p.uri, p.author_did FROM posts AS p WHERE p.uri = c.root_uri OFFSET 0) AS r ON true
), gone AS (
  DELETE FROM thread_contexts AS t USING due AS d WHERE t.post_uri = d.uri COLLATE "default" AND NOT d.stands
  RETURNING t.post_uri
), written AS (
  INSERT INTO thread_contexts AS t (post_uri, root_author_like_uri) SELECT uri, liked FROM due WHERE stands AND NOT late
  ON CONFLICT (post_uri) DO UPDATE SET root_author_like_uri = excluded.root_author_like_uri, updated_at = now()
    WHERE t.root_author_like_uri IS DISTINCT FROM excluded.root_author_like_uri
  RETURNING t.post_uri
), brought AS (
  -- One that was made meanwhile knows of a like that is not seen from here.
  INSERT INTO thread_contexts (post_uri, root_author_like_uri) SELECT uri, liked FROM due WHERE stands AND late
  ON CONFLICT (post_uri) DO NOTHING
  RETURNING post_uri
)
SELECT count(*) FILTER (WHERE late),
    ARRAY(SELECT post_uri FROM gone UNION ALL SELECT post_uri FROM written UNION ALL SELECT post_uri FROM brought)
  FROM touched
