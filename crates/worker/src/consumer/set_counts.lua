-- Sets the public counts and what each worker has published, both as they were at one moment: whoever published since then
-- publishes that again.
-- KEYS: the published totals, the public counts.
-- ARGV: the field of the note, the note, the number of fields, field and rows of each; worker/field, total, and so on.
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local totals = 4 + 2 * tonumber(ARGV[3])
for at = 4, totals - 1, 2 do
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
end
for at = totals, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
end
