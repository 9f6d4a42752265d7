-- Objects that nobody has asked for before: by the second in which a run begins, and its thread.
local threads = 0
function setup(thread)
  thread:set("first", threads * 500000)
  threads = threads + 1
end

function init()
  object = os.time() * 1000000 + first
end

function request()
  object = object + 1
  return wrk.format(nil, string.format("/object/%d", object))
end
