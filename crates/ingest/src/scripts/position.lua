-- Reads atomically where to resume, and whether another program has written after our newest entry.
-- KEYS: cursor, source, state, stream, incarnation
-- ARGV: how many entries to look through at most, the ID after which to start ('' for the newest entry of our last batch)
-- Returns cursor, source, incarnation ('' if none), whether the stream exists, its last ID ('' without it);
-- the first entry of another program (or ''), the last ID before it, whether everything was looked through; then the fields of
-- the state.
local last = last_generated_id(KEYS[4])
local answer = {
  redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '', redis.call('GET', KEYS[5]) or '',
  last and '1' or '0', last or '',
}
local from = ARGV[2]
if from == '' then
  from = id_in_field(KEYS[3], 'newest') or ''
end
if from == '' then
  answer[6], answer[7], answer[8] = '', answer[5], '1'
else
  local foreign, looked, all = beyond(KEYS[4], from, tonumber(ARGV[1]))
  answer[6], answer[7], answer[8] = foreign, looked, all and '1' or '0'
end
for _, text in ipairs(redis.call('HGETALL', KEYS[3])) do
  answer[#answer + 1] = text
end
return answer
