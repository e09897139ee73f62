-- Looks for dead letters of one repo, the newest first.
-- KEYS: the letters. ARGV: where to begin; the most letters that are looked at; the most bytes besides the last one; the DID; the record's path,
-- or ''.
-- Returns what was found, each the ID, the type, the original ID, the error, and whether it names the record; where to go on or ''.
local from, most, budget, did, path = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local found, seen, bytes = {}, 0, 0
local head, begins = #did + 32, '"' .. did .. '"'
while seen < most and bytes < budget do
  local letter = redis.call('XREVRANGE', KEYS[1], from, '-', 'COUNT', 1)[1]
  if not letter then
    return { found, '' }
  end
  seen = seen + 1
  from = '(' .. letter[1]
  local of = {}
  for at = 1, #letter[2], 2 do
    of[letter[2][at]] = letter[2][at + 1]
  end
  local data, err = of['data'] or '', of['error'] or ''
  bytes = bytes + #data
  local named = of['repo'] == did or string.find(string.sub(data, 1, head), begins, 1, true)
  if named then
    local names = path ~= '' and (string.find(data, path .. '"', 1, true) or string.find(err, path, 1, true))
    found[#found + 1] = { letter[1], string.sub(of['type'] or '', 1, 20), string.sub(of['origId'] or '', 1, 50),
      string.sub(err, 1, 504), names and 1 or 0 }
  end
end
return { found, from }
