-- Penstock 0.1 was started once more after its tables had moved, and made them again in `public`: what its workers wrote there
-- is added to ours. Where both say something, the later entry counts. One transaction.

LOCK TABLE penstock_repos, penstock_tombstones, penstock_shadowed, penstock_counts, penstock_checkpoint, penstock_dead_letters,
  penstock_meta IN ACCESS EXCLUSIVE MODE;

-- Whose profile it changed: `users` has the one that is valid, and is read again.
DELETE FROM penstock.profiles AS p USING penstock_repos AS o LEFT JOIN penstock.repos AS r ON r.did = o.did
 WHERE p.did = o.did AND o.profile_entry > coalesce(r.profile_entry, '');

-- What it swept are rows of its own: an account that it deleted is swept once more.
INSERT INTO penstock.repos AS r (did, rev, active, status, deleted_through, identity_entry, account_entry, profile_rev,
  profile_entry)
SELECT did, rev, active, status, deleted_through, identity_entry, account_entry, profile_rev, profile_entry
  FROM penstock_repos ORDER BY did
ON CONFLICT (did) DO UPDATE SET
  rev = greatest(r.rev, excluded.rev),
  active = CASE WHEN excluded.account_entry > coalesce(r.account_entry, '') THEN excluded.active ELSE r.active END,
  status = CASE WHEN excluded.account_entry > coalesce(r.account_entry, '') THEN excluded.status ELSE r.status END,
  deleted_through = greatest(r.deleted_through, excluded.deleted_through),
  handle = CASE WHEN excluded.identity_entry > coalesce(r.identity_entry, '') THEN NULL ELSE r.handle END,
  identity_entry = greatest(r.identity_entry, excluded.identity_entry),
  account_entry = greatest(r.account_entry, excluded.account_entry),
  profile_rev = CASE WHEN excluded.profile_entry > coalesce(r.profile_entry, '') THEN excluded.profile_rev
    ELSE r.profile_rev END,
  profile_entry = greatest(r.profile_entry, excluded.profile_entry);

INSERT INTO penstock.tombstones AS t (uri, commit_rev, entry_id) SELECT uri, commit_rev, entry_id FROM penstock_tombstones
ON CONFLICT (uri) DO UPDATE SET commit_rev = excluded.commit_rev, entry_id = excluded.entry_id
  WHERE coalesce(t.entry_id, '') < excluded.entry_id;

INSERT INTO penstock.shadowed AS s (uri, repo, kind, key_a, key_b, commit_rev, entry_id, row)
SELECT uri, repo, kind, key_a, key_b, commit_rev, entry_id, row FROM penstock_shadowed
ON CONFLICT (uri) DO UPDATE SET repo = excluded.repo, kind = excluded.kind, key_a = excluded.key_a, key_b = excluded.key_b,
    commit_rev = excluded.commit_rev, entry_id = excluded.entry_id, row = excluded.row
  WHERE coalesce(s.entry_id, '') < excluded.entry_id;
DELETE FROM penstock.shadowed AS s USING penstock_tombstones AS t
 WHERE t.uri = s.uri AND coalesce(s.entry_id, '') <= coalesce(t.entry_id, '');

INSERT INTO penstock.checkpoint AS c (host, seq, stream_id, updated_at)
SELECT host, seq, stream_id, updated_at FROM penstock_checkpoint
ON CONFLICT (host) DO UPDATE SET seq = excluded.seq, stream_id = excluded.stream_id, updated_at = excluded.updated_at
  WHERE c.updated_at < excluded.updated_at;

INSERT INTO penstock.dead_letters (orig_id, kind, data, seq, deliveries, error, consumer, created_at)
SELECT orig_id, kind, data, seq, deliveries, error, consumer, created_at FROM penstock_dead_letters
ON CONFLICT (orig_id) DO NOTHING;

-- Its workers write only where Redis knows the database by the name that it gave it.
UPDATE penstock.meta AS m SET value = o.value FROM penstock_meta AS o
 WHERE m.key = 'incarnation' AND o.key = 'incarnation' AND EXISTS (SELECT FROM penstock_repos);

-- Totals began at 0 with its tables: the rows are counted.
INSERT INTO penstock.counts AS c (worker, field, total) SELECT worker, field, total FROM penstock_counts
ON CONFLICT (worker, field) DO UPDATE SET total = c.total + excluded.total;
DELETE FROM penstock.meta WHERE key = 'profiles' OR key LIKE 'moving %';
INSERT INTO penstock.meta (key, value) VALUES ('counts', gen_random_uuid()), ('moving', '1')
ON CONFLICT (key) DO UPDATE SET value = excluded.value;

DROP TABLE penstock_repos, penstock_tombstones, penstock_shadowed, penstock_counts, penstock_checkpoint, penstock_dead_letters,
  penstock_meta;
DROP TABLE IF EXISTS penstock_migrations
