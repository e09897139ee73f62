-- Makes the notifications that ought to be there and are not, and mends those that say something else.
-- $1, $2 likes and their CIDs; $3, $4 reposts; $5, $6 follows; $7 posts that stand; $8 posts that came or went;
-- $9 how many rows the posts of $8 may bring at once.
-- With an offset each EXISTS is a look by key: joined, a plan for empty tables would read them whole for each batch.
-- Returns how many were written, how many $8 brought, and how many have no place because their URI is too long.
WITH due AS (
  SELECT l.uri AS record, l.uri || '#notification' AS uri, p.author_did AS recipient, l.user_did AS author, 'like' AS reason,
      l.post_uri AS subject, u.cid, l.created_at, false AS late
    FROM unnest($1::text[], $2::text[]) AS u (uri, cid)
    JOIN likes AS l ON l.uri = u.uri JOIN posts AS p ON p.uri = l.post_uri
   WHERE p.author_did <> l.user_did
  UNION ALL
  SELECT r.uri, r.uri || '#notification', p.author_did, r.user_did, 'repost', r.post_uri, u.cid, r.created_at, false
    FROM unnest($3::text[], $4::text[]) AS u (uri, cid)
    JOIN reposts AS r ON r.uri = u.uri JOIN posts AS p ON p.uri = r.post_uri
   WHERE p.author_did <> r.user_did
  UNION ALL
  SELECT f.uri, f.uri || '#notification', f.following_did, f.follower_did, 'follow', NULL, u.cid, f.created_at, false
    FROM unnest($5::text[], $6::text[]) AS u (uri, cid)
    JOIN follows AS f ON f.uri = u.uri
   -- Its row among the users came with the follow; should it be pruned at this moment, it comes again.
   WHERE f.following_did <> f.follower_did AND starts_with(f.following_did, 'did:')
  UNION ALL
  SELECT c.uri, c.uri || '#notification/' || d.reason, d.recipient, c.author_did, split_part(d.reason, '/', 1), c.uri, c.cid,
      c.created_at, false
    FROM unnest($7::text[]) AS u (uri) JOIN posts AS c ON c.uri = u.uri
   CROSS JOIN LATERAL (
      SELECT 'reply' AS reason, p.author_did AS recipient FROM posts AS p WHERE p.uri = c.parent_uri
      UNION ALL
      SELECT 'quote', p.author_did FROM quotes AS q JOIN posts AS p ON p.uri = q.quoted_uri WHERE q.post_uri = c.uri
      UNION ALL
      SELECT 'mention/' || (m.did #>> '{}'), m.did #>> '{}' FROM jsonb_path_query(c.facets, '$[*].features[*]
        ? (@."$type" == "app.bsky.richtext.facet#mention" || @.py_type == "app.bsky.richtext.facet#mention").did') AS m (did)
       WHERE jsonb_typeof(m.did) = 'string' AND length(m.did #>> '{}') BETWEEN 1 AND 255
    ) AS d
   WHERE d.recipient <> c.author_did
  UNION ALL (
    SELECT d.record, d.uri, p.author_did, d.author, d.reason, d.subject, d.cid, d.created_at, true
      FROM unnest($8::text[]) AS u (uri) JOIN posts AS p ON p.uri = u.uri
     CROSS JOIN LATERAL (
        SELECT l.uri AS record, l.uri || '#notification' AS uri, l.user_did AS author, 'like' AS reason, p.uri AS subject, w.cid,
            l.created_at
          FROM likes AS l LEFT JOIN penstock.waiting_cids AS w ON w.uri = l.uri COLLATE "C" WHERE l.post_uri = p.uri
        UNION ALL
        SELECT r.uri, r.uri || '#notification', r.user_did, 'repost', p.uri, i.cid, r.created_at
          FROM reposts AS r LEFT JOIN feed_items AS i ON i.uri = r.uri WHERE r.post_uri = p.uri
        UNION ALL
        SELECT c.uri, c.uri || '#notification/reply', c.author_did, 'reply', c.uri, c.cid, c.created_at
          FROM posts AS c WHERE c.parent_uri = p.uri
        UNION ALL
        SELECT c.uri, c.uri || '#notification/quote', c.author_did, 'quote', c.uri, c.cid, c.created_at
          FROM quotes AS q JOIN posts AS c ON c.uri = q.post_uri WHERE q.quoted_uri = p.uri
      ) AS d
     WHERE d.author <> p.author_did AND NOT EXISTS (SELECT FROM notifications AS n WHERE n.uri = d.uri OFFSET 0)
     LIMIT $9
  )
), written AS (
  INSERT INTO notifications AS n (uri, recipient_did, author_did, reason, reason_subject, cid, created_at)
  SELECT uri, recipient, author, reason, subject, cid, created_at FROM (
    -- What came with its post is there twice, and only once with its CID.
    SELECT DISTINCT ON (uri COLLATE "C") * FROM due WHERE length(uri) <= 512 ORDER BY uri COLLATE "C", cid COLLATE "C" NULLS LAST
  ) AS d
  ON CONFLICT (uri) DO UPDATE SET recipient_did = excluded.recipient_did, author_did = excluded.author_did,
      reason = excluded.reason, reason_subject = excluded.reason_subject, cid = excluded.cid, created_at = excluded.created_at,
      -- The same record about something else is news.
      is_read = n.is_read AND (n.recipient_did, n.reason_subject) IS NOT DISTINCT FROM (excluded.recipient_did, excluded.reason_subject),
      indexed_at = CASE WHEN (n.recipient_did, n.reason_subject) IS NOT DISTINCT FROM (excluded.recipient_did, excluded.reason_subject)
        THEN n.indexed_at ELSE excluded.indexed_at END
    WHERE (n.recipient_did, n.author_did, n.reason, n.reason_subject, n.cid, n.created_at) IS DISTINCT FROM
      (excluded.recipient_did, excluded.author_did, excluded.reason, excluded.reason_subject, excluded.cid, excluded.created_at)
  RETURNING 1
), told AS (
  -- By keys, for the same reason.
  DELETE FROM penstock.waiting_cids AS w WHERE w.uri = ANY(ARRAY(SELECT d.record COLLATE "C" FROM due AS d WHERE d.reason = 'like'))
), waits AS (
  INSERT INTO penstock.waiting_cids AS w (uri, cid)
  SELECT l.uri, u.cid FROM unnest($1::text[], $2::text[]) AS u (uri, cid) JOIN likes AS l ON l.uri = u.uri
   WHERE u.cid IS NOT NULL AND split_part(l.post_uri, '/', 4) = 'app.bsky.feed.post'
     -- Of one whose notification's URI is too long nobody will ever be told.
     AND length(l.uri || '#notification') <= 512
     AND split_part(l.post_uri, '/', 3) <> l.user_did AND NOT EXISTS (SELECT FROM posts AS p WHERE p.uri = l.post_uri OFFSET 0)
  ON CONFLICT (uri) DO UPDATE SET cid = excluded.cid
)
SELECT (SELECT count(*) FROM written), count(*) FILTER (WHERE late), count(*) FILTER (WHERE length(uri) > 512) FROM due
