// Requests to the members. Credentials are kept in memory only, and are sent to this member only.

/** An answer that is not a success. `code` is etcd's error code, if the body has one. */
class HttpError extends Error {
  constructor(status, body) {
    const message = body?.message ? `${body.message}${body.cause ? ` (${body.cause})` : ""}` : `status ${status}`;
    super(message);
    this.status = status;
    this.code = body?.errorCode;
    this.body = body;
  }
}

const session = {
  authorization: null,
  user: null,
  /** Called when a request needs other credentials. */
  onRefused: () => {},

  signIn(name, password) {
    const bytes = new TextEncoder().encode(`${name}:${password}`);
    this.authorization = `Basic ${btoa(String.fromCharCode(...bytes))}`;
    this.user = name;
  },

  signOut() {
    this.authorization = this.user = null;
  },

  headers() {
    return this.authorization ? { Authorization: this.authorization } : {};
  },
};

/** Sends a request to this member. Returns the response, or throws an HttpError. */
async function send(method, path, { form, signal, cache } = {}) {
  const headers = session.headers();
  let body;
  if (form) {
    headers["Content-Type"] = "application/x-www-form-urlencoded";
    body = new URLSearchParams(form).toString();
  }
  const response = await fetch(path, { method, headers, body, signal, cache: cache ?? "no-store" });
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  const error = new HttpError(response.status, answer);
  if (error.status === 401) session.onRefused(error);
  throw error;
}

async function getJson(path, options) {
  return (await send("GET", path, options)).json();
}

/** A key as it stands in a URL. */
function keyPath(key) {
  return key.split("/").map(encodeURIComponent).join("/");
}

/** The key of a path, to be shown. A key need not be text. */
function pathText(path) {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** Reads a response of JSON lines. Calls `take` with the values of each piece that arrives. */
async function readLines(response, take) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    const values = lines.filter((line) => line.trim()).map((line) => JSON.parse(line));
    if (values.length) take(values);
    if (done) return;
  }
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
