-- Tries each command that scripts call and that some servers forbid there or do not have. Nothing is written: those that would are
-- called without arguments, and refused for that.
-- KEYS: the stream, the cursor: in a Cluster both must be here.
-- Returns the first one that is refused for what it is, with the server's words; nothing where none is.
local calls = {
  { 'XINFO', 'STREAM', KEYS[1] },
  { 'XINFO', 'GROUPS', KEYS[1] },
  { 'XINFO', 'CONSUMERS', KEYS[1], 'penstock-probe' },
  { 'XPENDING', KEYS[1], 'penstock-probe' },
  { 'XRANGE', KEYS[1], '(0-1', '0-2' },
  { 'TYPE', KEYS[1] },
  { 'TIME' },
  { 'XADD' },
  { 'XACK' },
  { 'XTRIM' },
  { 'XREADGROUP' },
  { 'XAUTOCLAIM' },
  { 'XGROUP' },
}
for _, call in ipairs(calls) do
  local answer = redis.pcall(unpack(call))
  if type(answer) == 'table' and answer.err then
    local said = string.lower(answer.err)
    if string.find(said, 'not allowed from script') or string.find(said, 'unknown') then
      local is_sub = call[1] == 'XINFO'
      return { is_sub and call[1] .. ' ' .. call[2] or call[1], answer.err }
    end
  end
end
return {}
