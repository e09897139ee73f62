-- Trims the stream below an ID, but never at or past the first entry of another program after our newest one: that entry
-- shows that somebody else writes, and where. Unnumbered entries after our newest one go like the rest.
-- KEYS: lease, stream, state
-- ARGV: token, the ID below which all may go, how many entries to look through at most (or '' to look for nothing)
-- Returns how many entries were trimmed, and whether more may go already ('1' or '0'); none are unless the lease is mine.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 0, '0' }
end
local below, more = ARGV[2], '0'
local newest = ARGV[3] ~= '' and id_in_field(KEYS[3], 'newest')
local looked = newest
if newest then
  local foreign, all
  foreign, looked, all = beyond(KEYS[2], newest, tonumber(ARGV[3]))
  local bound = foreign
  if not all then
    bound, more = looked, '1'
  end
  if bound ~= '' and id_is_below(bound, below) then
    below = bound
  end
end
local trimmed = redis.call('XTRIM', KEYS[2], 'MINID', below)
-- After the trim: a full Redis refuses a script that starts with this.
if looked ~= newest then
  redis.call('HSET', KEYS[3], 'newest', looked)
end
return { trimmed, more }
