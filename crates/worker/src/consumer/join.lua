-- Claims the prefix for a pipeline, and makes stream and group where they are missing.
-- KEYS: the stream, the cursor, the incarnation, the claim, the source.
-- ARGV: group, the claim's value, the database's incarnation.
-- Returns how that went, and who else holds the claim.
local claim = redis.call('GET', KEYS[4])
if claim and claim ~= ARGV[2] then
  return { 'held', claim }
end
local stream = redis.call('EXISTS', KEYS[1]) == 1
local group = false
for _, info in ipairs(stream and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}) do
  for at = 1, #info, 2 do
    group = group or (info[at] == 'name' and info[at + 1] == ARGV[1])
  end
end
if group and claim then
  return { 'there', '' }
end
-- Says whether the stream still has the entry with which the present source began: then it has all that came since.
local function is_whole()
  local ok, source = pcall(cjson.decode, redis.call('GET', KEYS[5]) or '')
  local first = ok and type(source) == 'table' and source.firstId
  return type(first) == 'string' and string.match(first, '^%d+%-%d+$')
    and #redis.call('XRANGE', KEYS[1], first, first) == 1
end
-- Where there is a cursor there was a stream; and who holds the claim already had a group. Gone, it took with it what
-- nobody had read: without the incarnation ingest goes back to the checkpoint. Only ingest sets it again then: another
-- worker that joins in between must not.
local lost = redis.call('EXISTS', KEYS[2]) == 1 and (not stream or (claim and not group and not is_whole()))
if lost then
  redis.call('DEL', KEYS[3])
elseif not claim then
  redis.call('SET', KEYS[3], ARGV[3], 'NX')
end
redis.call('SET', KEYS[4], ARGV[2])
if group then
  return { 'there', '' }
end
redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
return { lost and 'lost' or 'made', '' }
