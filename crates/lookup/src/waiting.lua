-- Looks through entries of a stream that a group has not acknowledged, for those of one repo.
-- KEYS: the stream. ARGV: the group; where to begin, or '' for the first entry that is not acknowledged; the most entries; the most
-- bytes besides the last one; the DID; the record's path, or ''.
-- Returns what was found, each the ID, the type, whether a consumer has it, and whether it names the record; where to go on or '';
-- how many entries were looked at; and the last entry that the group was given, or ''.
local group, from, most, budget, did, path = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local found, seen, bytes = {}, 0, 0
local last = ''
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
for _, one in ipairs(groups.err and {} or groups) do
  local of = {}
  for at = 1, #one, 2 do
    of[one[at]] = one[at + 1]
  end
  if of['name'] == group then
    last = of['last-delivered-id']
    if from == '' then
      local lowest = redis.call('XPENDING', KEYS[1], group)[2]
      from = lowest or '(' .. last
    end
  end
end
if from == '' then
  from = '-'
end
-- What a producer writes before anything of an author's.
local head, begins = #did + 32, '"' .. did .. '"'
while seen < most and bytes < budget do
  local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 20)
  if #entries == 0 then
    return { found, '', seen, last }
  end
  for _, entry in ipairs(entries) do
    seen = seen + 1
    from = '(' .. entry[1]
    local kind, data = '', ''
    for at = 1, #entry[2], 2 do
      if entry[2][at] == 'type' then
        kind = entry[2][at + 1]
      elseif entry[2][at] == 'data' then
        data = entry[2][at + 1]
      end
    end
    bytes = bytes + #data
    if string.find(string.sub(data, 1, head), begins, 1, true) then
      local pending = last ~= '' and redis.call('XPENDING', KEYS[1], group, entry[1], entry[1], 1) or {}
      local named = path ~= '' and string.find(data, path .. '"', 1, true) ~= nil
      found[#found + 1] = { entry[1], string.sub(kind, 1, 20), #pending, named and 1 or 0 }
    end
  end
end
return { found, from, seen, last }
