-- Says whether the public counts are there, whether anybody published, and what is noted of who set them.
-- KEYS: the published totals, the public counts. ARGV: the field of the note.
return {
  redis.call('EXISTS', KEYS[2]),
  redis.call('EXISTS', KEYS[1]),
  redis.call('HGET', KEYS[1], ARGV[1]),
}
