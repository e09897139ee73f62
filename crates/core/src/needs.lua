-- Ends the script before it wrote anything where this user may not run a command that comes later: Redis keeps what was written.
-- Before Redis 7 nobody can tell.
local function needs(commands)
  for _, asked in ipairs(redis.acl_check_cmd and commands or {}) do
    if not redis.acl_check_cmd(unpack(asked)) then
      error({ err = 'NOPERM this user may not run ' .. asked[1] .. ' on ' .. asked[2] })
    end
  end
end
