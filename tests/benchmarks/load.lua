-- Script for wrk (`wrk … -s load.lua URL -- METHOD`): builds the requests, and prints the results as one line of JSON.

local TASKS = 1000
local method
local count = 0

function init(arguments)
  method = arguments[1]
end

function request()
  if method == "GET" then
    return wrk.format("GET")
  end
  count = count + 1
  local path = wrk.path
  if method == "PUT" then
    path = path .. "/" .. (count % TASKS + 1)
  end
  local body = string.format('{"title": "Task %d", "description": "Finish the guide", "completed": false}', count)
  return wrk.format(method, path, { ["Content-Type"] = "application/json" }, body)
end

function done(summary, latency)
  local failures = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %.1f, "p99": %.1f}\n',
    summary.requests, summary.duration / 1e6,
    failures.status + failures.connect + failures.read + failures.write + failures.timeout,
    latency:percentile(50), latency:percentile(99)
  ))
end
