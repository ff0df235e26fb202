-- Realistic heads for wrk: ten fields, the path, ids, trace context and cookie new every time; one
-- trace in a hundred is sampled. BENCH_CLOSE=1 asks for a connection of its own per request.
local n = 0
local close = os.getenv("BENCH_CLOSE") == "1"
request = function()
  n = n + 1
  local id = string.format("%08x", n)
  return wrk.format("GET", "/api/v1/items/" .. n .. "?page=3&sort=asc", {
    ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    ["Accept"] = "application/json",
    ["Accept-Encoding"] = "gzip, deflate, br",
    ["Accept-Language"] = "en-GB,en;q=0.9",
    ["X-Request-Id"] = id .. "-3b1d-4a53-9c7e-0a1b2c3d4e5f",
    ["traceparent"] = "00-4bf92f3577b34da6a3ce929d" .. id .. "-00f067aa0ba902b7-" ..
      (n % 100 == 0 and "01" or "00"),
    ["Cookie"] = "session=" .. id .. "abcdef0123456789abcdef; theme=dark",
    ["Cache-Control"] = "no-cache",
    ["Connection"] = close and "close" or nil,
  })
end
