// Requests to the server.

const STORED = "simcse-api-key";

export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Keep the API key for this tab; an empty key is forgotten. */
export function setKey(key) {
  if (key) sessionStorage.setItem(STORED, key);
  else sessionStorage.removeItem(STORED);
}

/**
 * Send a request and return its JSON answer.
 *
 * Paths are relative, so that the page also works below a path of a reverse proxy.
 *
 * @param {string} path such as "v1/search"
 * @param {object} [body] JSON of a POST request; none for a GET request
 * @param {AbortSignal} [signal] ends the request
 */
export async function request(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(STORED);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const method = body ? "POST" : "GET";
  let answer, content;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
    content = await answer.json().catch((error) => (signal?.aborted ? Promise.reject(error) : null));
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServerError(0, "The server does not answer. Check that it runs, then try again.");
  }
  if (answer.ok && content !== null) return content;
  const message = content?.error?.message ?? `The server answered with status ${answer.status}.`;
  throw new ServerError(answer.status, message);
}
