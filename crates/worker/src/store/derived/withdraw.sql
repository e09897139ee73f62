-- Removes the notifications whose cause is gone.
-- $1 likes, reposts and follows that went; $2 posts that went or say something else; $3, $4 whom each of them named before;
-- $5 posts that came or went; $6 how many rows the posts of $5 may take at once.
-- With an offset each EXISTS is a look by key: joined, a plan for empty tables would read them whole for each batch.
-- Returns how many were removed, and how many $5 took.
WITH absent AS (
  SELECT u.uri FROM unnest($5::text[]) AS u (uri) WHERE NOT EXISTS (SELECT FROM posts AS p WHERE p.uri = u.uri OFFSET 0)
), stale AS (
  SELECT u.uri || '#notification' AS uri, NULL AS liked, false AS late FROM unnest($1::text[]) AS u (uri)
   WHERE NOT EXISTS (SELECT FROM likes AS l JOIN posts AS p ON p.uri = l.post_uri WHERE l.uri = u.uri AND p.author_did <> l.user_did OFFSET 0)
     AND NOT EXISTS (SELECT FROM reposts AS r JOIN posts AS p ON p.uri = r.post_uri WHERE r.uri = u.uri AND p.author_did <> r.user_did OFFSET 0)
     AND NOT EXISTS (SELECT FROM follows AS f WHERE f.uri = u.uri AND f.follower_did <> f.following_did OFFSET 0)
  UNION ALL
  SELECT u.uri || '#notification/reply', NULL, false FROM unnest($2::text[]) AS u (uri)
   WHERE NOT EXISTS (SELECT FROM posts AS c JOIN posts AS p ON p.uri = c.parent_uri
                      WHERE c.uri = u.uri AND p.author_did <> c.author_did OFFSET 0)
  UNION ALL
  SELECT u.uri || '#notification/quote', NULL, false FROM unnest($2::text[]) AS u (uri)
   WHERE NOT EXISTS (SELECT FROM posts AS c JOIN quotes AS q ON q.post_uri = c.uri JOIN posts AS p ON p.uri = q.quoted_uri
                      WHERE c.uri = u.uri AND p.author_did <> c.author_did OFFSET 0)
  UNION ALL
  SELECT u.uri || '#notification/mention/' || u.did, NULL, false FROM unnest($3::text[], $4::text[]) AS u (uri, did)
   WHERE NOT EXISTS (SELECT FROM posts AS c WHERE c.uri = u.uri AND c.author_did <> u.did AND u.did IN (
      SELECT m.did #>> '{}' FROM jsonb_path_query(c.facets, '$[*].features[*]
        ? (@."$type" == "app.bsky.richtext.facet#mention" || @.py_type == "app.bsky.richtext.facet#mention").did') AS m (did)) OFFSET 0)
  UNION ALL (
    SELECT d.uri, d.liked, true FROM absent AS a
     CROSS JOIN LATERAL (
        SELECT l.uri || '#notification' AS uri, l.uri AS liked FROM likes AS l WHERE l.post_uri = a.uri
        UNION ALL SELECT r.uri || '#notification', NULL FROM reposts AS r WHERE r.post_uri = a.uri
        UNION ALL SELECT c.uri || '#notification/reply', NULL FROM posts AS c WHERE c.parent_uri = a.uri
        UNION ALL SELECT q.post_uri || '#notification/quote', NULL FROM quotes AS q WHERE q.quoted_uri = a.uri
      ) AS d
     WHERE EXISTS (SELECT FROM notifications AS n WHERE n.uri = d.uri OFFSET 0)
     LIMIT $6
  )
), gone AS (
  -- By keys, for the same reason.
  DELETE FROM notifications AS n WHERE n.uri = ANY(ARRAY(SELECT s.uri FROM stale AS s)) RETURNING n.uri, n.cid
), waits AS (
  INSERT INTO penstock.waiting_cids AS w (uri, cid) SELECT s.liked, g.cid FROM gone AS g JOIN stale AS s ON s.uri = g.uri
   WHERE s.liked IS NOT NULL AND g.cid IS NOT NULL
  -- A like that changed while its notification was left standing has noted its CID itself.
  ON CONFLICT (uri) DO NOTHING
)
SELECT (SELECT count(*) FROM gone), count(*) FILTER (WHERE late) FROM stale
