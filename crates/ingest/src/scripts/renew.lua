-- Renews the lease if it is still mine.    KEYS: lease    ARGV: token, lease ms
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
