-- Publishes each event in one round trip.    KEYS: channel    ARGV: events
for index = 1, #ARGV do
  redis.call('PUBLISH', KEYS[1], ARGV[index])
end
return #ARGV
