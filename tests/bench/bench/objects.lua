-- Any of the first N objects, each as likely as the others. Argument: N.
local threads = 0
function setup(thread)
  thread:set("seed", threads)
  threads = threads + 1
end

function init(arguments)
  objects = tonumber(arguments[1])
  math.randomseed(4711 + seed)
end

function request()
  return wrk.format(nil, "/object/" .. math.random(0, objects - 1))
end
