-- Claims the prefix for a pipeline, and makes both streams and their groups where they are missing.
-- KEYS: the stream, the cursor, the incarnation, the claim, the source, the second stream, the state.
-- ARGV: group, the claim's value, the database's incarnation, the consumer, the state's field of the second stream.
-- Returns how that went, and who else holds the claim.
local claim = redis.call('GET', KEYS[4])
if claim and claim ~= ARGV[2] then
  return { 'held', claim }
end
local stream = redis.call('EXISTS', KEYS[1]) == 1
local function has_group(key)
  for _, info in ipairs(redis.call('EXISTS', key) == 1 and redis.call('XINFO', 'GROUPS', key) or {}) do
    for at = 1, #info, 2 do
      if info[at] == 'name' and info[at + 1] == ARGV[1] then
        return true
      end
    end
  end
  return false
end
local group, bulk = has_group(KEYS[1]), has_group(KEYS[6])
-- Says whether the stream still has the entry with which the present source began: then it has all that came since.
local function is_whole()
  local ok, source = pcall(cjson.decode, redis.call('GET', KEYS[5]) or '')
  local first = ok and type(source) == 'table' and source.firstId
  return type(first) == 'string' and string.match(first, '^%d+%-%d+$')
    and #redis.call('XRANGE', KEYS[1], first, first) == 1
end
-- Where there is a cursor there was a stream; and who holds the claim already had a group. Gone, it took with it what
-- nobody had read: without the incarnation ingest goes back to the checkpoint. Only ingest sets it again then: another
-- worker that joins in between must not. The same goes for the second stream, where ingest noted that it wrote it.
local lost = redis.call('EXISTS', KEYS[2]) == 1 and (not stream or (claim and not group and not is_whole()))
if not bulk and redis.call('HDEL', KEYS[7], ARGV[5]) == 1 then
  lost = true
end
-- In a full Redis a script may allocate after a first write that needs no memory: only who is in the group frees any.
redis.pcall('HDEL', KEYS[7], '')
if lost then
  redis.call('DEL', KEYS[3])
elseif not claim then
  redis.call('SET', KEYS[3], ARGV[3], 'NX')
end
if not claim then
  redis.call('SET', KEYS[4], ARGV[2])
end
if not bulk then
  redis.call('XGROUP', 'CREATE', KEYS[6], ARGV[1], '0', 'MKSTREAM')
end
-- Who is in the group of the first stream and not in this one reads the first alone: ingest looks for that.
redis.call('XGROUP', 'CREATECONSUMER', KEYS[6], ARGV[1], ARGV[4])
if not group then
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
end
-- Redis lists a consumer once it was given an entry: until the first one comes, nobody would see that a worker is there.
redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[4])
if lost then
  return { 'lost', '' }
end
return { group and 'there' or 'made', '' }
