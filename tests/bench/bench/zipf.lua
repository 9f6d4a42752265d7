-- The first N objects; the n-th most popular is asked for in proportion to 1/n^S. Arguments: N, S.
local threads = 0
function setup(thread)
  thread:set("seed", threads)
  threads = threads + 1
end

local DRAWS = 1000000
local draws = {}
local at = 0

-- Drawn before the load begins, by inversion of the sums.
function init(arguments)
  local objects, exponent = tonumber(arguments[1]), tonumber(arguments[2])
  math.randomseed(4711 + seed)
  local sums, total = {}, 0
  for n = 1, objects do
    total = total + n ^ -exponent
    sums[n] = total
  end
  for draw = 1, DRAWS do
    local sought, low, high = math.random() * total, 1, objects
    while low < high do
      local middle = math.floor((low + high) / 2)
      if sums[middle] < sought then low = middle + 1 else high = middle end
    end
    draws[draw] = low - 1
  end
end

function request()
  at = at % DRAWS + 1
  return wrk.format(nil, "/object/" .. draws[at])
end
