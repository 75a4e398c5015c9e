// The server's three answers, and what can go wrong in words that name the way out.

const PATIENCE = 40_000; // milliseconds; the server itself gives up a request before

/** kind: offline, slow, busy, refused, key or broken. field: the part of the request that was refused, or null. */
export class ApiError extends Error {
  constructor(kind, message, field = null) {
    super(message);
    this.kind = kind;
    this.field = field;
  }
}

export function methods() {
  return ask("v1/methods");
}

export function run() {
  return ask("v1/run");
}

/** The body of a retrieval; the same goes into the copied curl command. */
export function request(state, method) {
  const body = { query: state.query, k: state.k, method };
  if (state.seed !== 0) body.seed = state.seed;
  if (state.spread !== 1) body.spread = state.spread;
  if (Object.keys(state.filters).length) body.filters = state.filters;
  return body;
}

export function retrieve(state, method, signal) {
  return ask("v1/retrieve", { body: { ...request(state, method), map: true }, signal });
}

/** The same request for a terminal. The key is named, never shown. */
export function curl(state, method) {
  const url = new URL("v1/retrieve", document.baseURI);
  const body = JSON.stringify(request(state, method)).replaceAll("'", "'\\''");
  const key = storedKey() ? ' -H "Authorization: Bearer $R4T_SERVE_KEY"' : "";
  return `curl -s ${url} -H 'Content-Type: application/json'${key} -d '${body}'`;
}

export function keepKey(key) {
  sessionStorage.setItem("r4t-key", key);
}

function storedKey() {
  try {
    return sessionStorage.getItem("r4t-key");
  } catch {
    return null;
  }
}

async function ask(path, { body = null, signal = null } = {}) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  if (storedKey()) headers.Authorization = `Bearer ${storedKey()}`;
  const limit = AbortSignal.timeout(PATIENCE);
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method: body ? "POST" : "GET",
      headers,
      body: body ? JSON.stringify(body) : null,
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    if (response.ok) return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    if (limit.aborted) throw new ApiError("slow", "The server took too long. It may be busy: try again.");
    throw new ApiError("offline", "The server does not answer. Check that r4t serve is still running, then try again.");
  }
  throw await refusal(response);
}

async function refusal(response) {
  const said = (await response.json().catch(() => null))?.error ?? {};
  if (response.status === 429 || response.status === 503) {
    const wait = Number(response.headers.get("Retry-After"));
    const when = wait > 0 ? ` in ${wait} ${wait === 1 ? "second" : "seconds"}` : " in a moment";
    return new ApiError("busy", `The server has more requests than it can answer. Try again${when}.`);
  }
  if (response.status === 401) return new ApiError("key", "This server asks for a key.");
  if (response.status < 500) {
    return new ApiError("refused", said.message ?? `The server refused the request (${response.status}).`, said.field ?? null);
  }
  return new ApiError("broken", "The server failed on this request; its log says why. Other queries may work.");
}
