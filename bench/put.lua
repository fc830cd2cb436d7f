-- wrk: PUTs of a 64-byte value to 1,000 keys for each thread, as a client sends them.
local threads = 0
local number = 0
name = 0  -- set for each thread by setup
local headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }
local body = "value=" .. string.rep("v", 64)

function setup(thread)
  threads = threads + 1
  thread:set("name", threads)
end

function request()
  number = number + 1
  local target = "/v2/keys/bench/t" .. name .. "/k" .. (number % 1000)
  return wrk.format("PUT", target, headers, body)
end
