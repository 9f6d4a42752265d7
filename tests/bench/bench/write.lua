-- Writes of about 250 bytes, in 64 lanes.
local number = 0
local body = string.format('{"filling": "%s"}', string.rep("x", 230))

function request()
  number = number + 1
  local fields = { ["content-type"] = "application/json", ["x-lane"] = "lane-" .. number % 64 }
  return wrk.format("POST", nil, fields, body)
end
