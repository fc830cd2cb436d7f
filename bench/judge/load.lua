-- wrk: the requests of one kind. The judge sets these variables:
--
--   LOAD        put, into, cas, post, ttl
--   VALUE_BYTES length of a value
--   KEYS        number of keys that each thread writes in turn
--   DIRECTORY   where they are, below /v2/keys: in a directory for each thread, or for `into` in this one itself
local kind = os.getenv("LOAD") or "put"
local bytes = tonumber(os.getenv("VALUE_BYTES") or "64")
local keys = tonumber(os.getenv("KEYS") or "1000")
local directory = "/v2/keys/" .. (os.getenv("DIRECTORY") or "bench")
local headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }
local value = string.rep("v", bytes)
local threads = 0
local number = 0
name = 0  -- set for each thread by setup

function setup(thread)
  threads = threads + 1
  thread:set("name", threads)
end

local function key()
  number = number + 1
  return directory .. "/t" .. name .. "/k" .. (number % keys)
end

local function key_into()
  number = number + 1
  return directory .. "/k" .. (number % keys)
end

local kinds = {
  put = function() return wrk.format("PUT", key(), headers, "value=" .. value) end,
  into = function() return wrk.format("PUT", key_into(), headers, "value=" .. value) end,
  ttl = function() return wrk.format("PUT", key(), headers, "ttl=3600&value=" .. value) end,
  -- All connections compare and set the same key. Each of these requests succeeds.
  cas = function()
    return wrk.format("PUT", directory .. "/contended", headers, "prevValue=" .. value .. "&value=" .. value)
  end,
  post = function() return wrk.format("POST", directory .. "/queue", headers, "value=" .. value) end,
}
request = kinds[kind]
