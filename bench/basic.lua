-- wrk: sends the credentials of root (password "bench") in each request.
wrk.headers["Authorization"] = "Basic cm9vdDpiZW5jaA=="
