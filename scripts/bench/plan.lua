-- Makes wrk post BENCH_BODY with the headers of BENCH_HEADERS (one "name: value" a line)
-- and print its figures as one line of JSON, times in microseconds.
wrk.method = "POST"
wrk.body = os.getenv("BENCH_BODY")
for line in string.gmatch(os.getenv("BENCH_HEADERS") or "", "[^\n]+") do
  local name, value = string.match(line, "^([^:]+): (.*)$")
  wrk.headers[name] = value
end

function done(summary, latency)
  local fields = {
    requests = summary.requests,
    microseconds = summary.duration,
    p50 = latency:percentile(50),
    p99 = latency:percentile(99),
    refused = summary.errors.status,
    broken = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
  }
  local parts = {}
  for name, number in pairs(fields) do
    parts[#parts + 1] = string.format('"%s":%d', name, number)
  end
  io.write("\n{" .. table.concat(parts, ",") .. "}\n")
end
