-- Reads in one moment where to read on.
-- KEYS: cursor, source, state, stream, incarnation
-- Returns cursor, source, incarnation ('' where there is none), whether the stream is there, then the fields of the state.
local answer = {
  redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '', redis.call('GET', KEYS[5]) or '',
  tostring(redis.call('EXISTS', KEYS[4])),
}
for _, text in ipairs(redis.call('HGETALL', KEYS[3])) do
  answer[#answer + 1] = text
end
return answer
