-- Reads in one moment where to read on, and whether another program has written behind our newest entry.
-- KEYS: cursor, source, state, stream, incarnation
-- ARGV: how many entries are looked through at most, the ID behind which that begins ('' for what our last batch left)
-- Returns cursor, source, incarnation ('' where there is none), whether the stream is there, its last ID ('' without it);
-- the first entry of another program (or ''), the last ID before it, whether all was looked through; then the fields of
-- the state.
local answer = {
  redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '', redis.call('GET', KEYS[5]) or '',
  tostring(redis.call('EXISTS', KEYS[4])), '',
}
if answer[4] == '1' then
  local info = redis.call('XINFO', 'STREAM', KEYS[4])
  for field = 1, #info, 2 do
    if info[field] == 'last-generated-id' then
      answer[5] = info[field + 1]
    end
  end
end
local from = ARGV[2]
if from == '' then
  from = id_in(KEYS[3], 'newest') or ''
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
