-- What wrk found, as one line of JSON. Requests: as the command line says, or as a script before it defines.
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'FOUND {"requests": %d, "seconds": %f, "bytes": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, "bad": %d, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99),
    latency.max, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
