-- Removes written messages, and tells of those that still were there: whoever repeats this counts nothing twice.
-- KEYS: what this worker took, the queued IDs, the persisted IDs, the rate, total of messages and of batches, ID, size, time and
-- IDs of the last batch, mean, 95th and 99th percentile of the latency, messages held by all workers.
-- ARGV: the channel, batch ID, time, the three latencies, how many persisted IDs are kept, then message and ID or '', and so on.
local size, ids = 0, {}
for at = 8, #ARGV, 2 do
  -- The oldest is at the right end.
  if redis.call('LREM', KEYS[1], -1, ARGV[at]) == 1 then
    size = size + 1
    if ARGV[at + 1] ~= '' then
      ids[#ids + 1] = ARGV[at + 1]
    end
  end
end
if size == 0 then
  return 0
end
local gone = {}
for at, id in ipairs(ids) do
  gone[id] = true
  if #ids - at < tonumber(ARGV[7]) then
    redis.call('LPUSH', KEYS[3], id)
  end
end
redis.call('LTRIM', KEYS[3], 0, ARGV[7] - 1)
local queued, left = redis.call('LRANGE', KEYS[2], 0, 999), {}
for _, id in ipairs(queued) do
  if not gone[id] then
    left[#left + 1] = id
  end
end
if #left < #queued then
  redis.call('DEL', KEYS[2])
  if #left > 0 then
    redis.call('RPUSH', KEYS[2], unpack(left))
  end
end
count(KEYS[4], size)
hold(KEYS[14], -size)
local messages = redis.call('INCRBY', KEYS[5], size)
local batches = redis.call('INCR', KEYS[6])
local listed = #ids > 0 and cjson.encode(ids) or '[]'
local last = { ARGV[2], size, ARGV[3], listed, ARGV[4], ARGV[5], ARGV[6] }
for at, value in ipairs(last) do
  redis.call('SET', KEYS[6 + at], value)
end
-- Who may not publish there still writes messages.
redis.pcall('PUBLISH', ARGV[1], string.format(
  '{"type":"persisted","batch_id":%s,"batch_size":%d,"ids":%s,"total_batches":%.0f,"total_messages":%.0f,"timestamp":%s}',
  cjson.encode(ARGV[2]), size, listed, batches, messages, cjson.encode(ARGV[3])))
return size
