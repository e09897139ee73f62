-- Adds dead letters, and keeps them within their bounds: both the bytes and the count, and each repo's share of them.
--
-- A letter weighs its bytes, and at least `LETTER_LEAST`: so one sum bounds both. While all weigh too much, the oldest letter
-- goes of the repo that adds one, if that one has more than its share; else of the repo that has most, if that has more than
-- its share; else the oldest of all. So a repo that floods pushes out its own letters, and no other's.
--
-- Beside the letters stand, under names that begin with theirs, what was counted of them: `index`, a sorted set of `owner:ID:weight`,
-- which finds the oldest letter of an owner without looking at any; `shares`, a sorted set of owners by weight; `held`, a
-- hash with the sum, `weight`, and the newest letter that is counted, `through`. An owner is a hash of the repo. Others may add
-- letters, and remove some: what was added is counted later, some at a time; where letters are missing all are counted anew.

-- How many letters that somebody else added one script counts, and how many bytes of them, about.
local LETTER_LOOK, LETTER_BYTES = 100, 1000000
-- How many letters one script removes at most.
local LETTER_GOES = 1000
-- Where the numbers in the IDs of ingest's letters begin: so an ID tells whose letter it is.
local LETTER_OURS = 1000000000000

-- Returns whose share of the place a letter takes, and its weight.
local function letter_size(fields)
  local repo, kind, bytes = '', '', 0
  for at = 1, #fields, 2 do
    bytes = bytes + #fields[at] + #fields[at + 1]
    if fields[at] == 'repo' then
      repo = fields[at + 1]
    elseif fields[at] == 'type' then
      kind = fields[at + 1]
    end
  end
  if repo == '' and kind == 'message' then
    repo = kind
  end
  return string.sub(redis.sha1hex(repo), 1, 20), math.max(bytes, LETTER_LEAST)
end
local function letter_held(key, field)
  return redis.call('HGET', key .. ':held', field) or ''
end
local function letter_weight(key)
  return tonumber(letter_held(key, 'weight')) or 0
end
local function letter_through(key)
  return string.match(letter_held(key, 'through'), '^%d+%-%d+$') or '0-0'
end
local function letter_weigh(key, owner, weight)
  if tonumber(redis.call('ZINCRBY', key .. ':shares', weight, owner)) <= 0 then
    redis.call('ZREM', key .. ':shares', owner)
  end
  redis.call('HSET', key .. ':held', 'weight', string.format('%.0f', letter_weight(key) + weight))
end
-- Returns the beginning of the mark of a letter: marks of one owner sort as the IDs do.
local function letter_mark(owner, id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return owner .. ':' .. string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq .. ':'
end
-- Counts a letter.
local function letter_count(key, id, fields)
  local owner, weight = letter_size(fields)
  if redis.call('ZADD', key .. ':index', 0, letter_mark(owner, id) .. string.format('%.0f', weight)) == 1 then
    letter_weigh(key, owner, weight)
  end
  redis.call('HSET', key .. ':held', 'through', id)
  return owner
end
-- Removes the mark of a letter that went.
local function letter_unmark(key, mark)
  local owner, weight = string.match(mark, '^(%x+):%d+%-%d+:(%d+)$')
  if redis.call('ZREM', key .. ':index', mark) == 1 and owner then
    letter_weigh(key, owner, -tonumber(weight))
  end
end
-- Removes a letter, given its fields. Returns whether it was there.
local function letter_remove(key, id, fields)
  local mark = letter_mark(letter_size(fields), id)
  for _, found in ipairs(redis.call('ZRANGEBYLEX', key .. ':index', '[' .. mark, '(' .. mark .. ';')) do
    letter_unmark(key, found)
  end
  return redis.call('XDEL', key, id) == 1
end
-- Forgets all that was counted.
local function letter_forget(key)
  redis.call('DEL', key .. ':index', key .. ':shares')
  redis.call('HDEL', key .. ':held', 'weight', 'through')
end
-- Counts letters that others added, some at a time. Returns whether all are counted.
local function letter_catch_up(key)
  local bytes = LETTER_BYTES
  for _ = 1, LETTER_LOOK do
    local letter = redis.call('XRANGE', key, '(' .. letter_through(key), '+', 'COUNT', 1)[1]
    if not letter then
      return true
    elseif bytes <= 0 then
      return false
    end
    letter_count(key, letter[1], letter[2])
    for at = 1, #letter[2] do
      bytes = bytes - #letter[2][at]
    end
  end
  return false
end
-- Returns the ID of the next letter of ingest, where it is not left to Redis.
local function letter_id(key)
  if not LETTER_OF_INGEST then
    return '*'
  end
  local time = redis.call('TIME')
  local ms, seq = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), LETTER_OURS
  if redis.call('EXISTS', key) == 1 then
    local info = redis.call('XINFO', 'STREAM', key)
    for at = 1, #info, 2 do
      if info[at] == 'last-generated-id' then
        local last_ms, last_seq = string.match(info[at + 1], '^(%d+)-(%d+)$')
        if tonumber(last_ms) >= ms then
          ms, seq = tonumber(last_ms), math.max(tonumber(last_seq) + 1, seq)
        end
      end
    end
  end
  return string.format('%.0f-%.0f', ms, seq)
end
-- Removes letters until the others are within the bounds; the one that was added last stays.
local function letter_bound(key, adder, added)
  for _ = 1, LETTER_GOES do
    if letter_weight(key) <= LETTER_MOST then
      return
    end
    local from = (tonumber(redis.call('ZSCORE', key .. ':shares', adder)) or 0) > LETTER_SHARE and adder
    if not from then
      local most = redis.call('ZREVRANGE', key .. ':shares', 0, 0, 'WITHSCORES')
      from = most[2] and tonumber(most[2]) > LETTER_SHARE and most[1]
    end
    local mark = from and redis.call('ZRANGEBYLEX', key .. ':index', '[' .. from .. ':', '(' .. from .. ';', 'LIMIT', 0, 1)[1]
    local ms, seq = string.match(mark or '', '^%x+:0*(%d+)%-0*(%d+):')
    if ms and ms .. '-' .. seq ~= added then
      redis.call('XDEL', key, ms .. '-' .. seq)
      letter_unmark(key, mark)
    else
      local oldest = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
      if not oldest or oldest[1] == added then
        return
      end
      letter_remove(key, oldest[1], oldest[2])
    end
  end
end
local function dead_letter(key, kind, data, seq, orig, deliveries, err, consumer, repo)
  if redis.call('XLEN', key) == 0 then
    letter_forget(key)
  end
  local all = letter_catch_up(key)
  local fields = { 'type', kind, 'data', data, 'seq', seq, 'origId', orig, 'deliveries', tostring(deliveries), 'error', err,
    'consumer', consumer }
  if repo and repo ~= '' then
    fields[#fields + 1] = 'repo'
    fields[#fields + 1] = repo
  end
  local id = redis.call('XADD', key, letter_id(key), unpack(fields))
  local adder = letter_size(fields)
  if all then
    letter_count(key, id, fields)
  end
  if all and letter_weight(key) > LETTER_MOST and redis.call('ZCARD', key .. ':index') ~= redis.call('XLEN', key) then
    letter_forget(key)
    letter_catch_up(key)
  else
    letter_bound(key, adder, id)
  end
end
