// Requests to the server, and its errors in words.

import { askForKey, key } from "./key.js";
import { duration } from "./format.js";

/** A refused or failed request. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, wait = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    /** Seconds after which the server suggests another try; null if it suggests none. */
    this.wait = wait;
  }
}

/** Sends a request. Asks for an API key and tries once more where the server wants one. */
export async function call(method, path, { body, signal, accept, ask = true } = {}) {
  const response = await send(method, path, body, signal, accept);
  if (response.ok) return response;
  const error = await errorOf(response);
  if (error.status !== 401 || !ask) throw error;
  const reason = key() === null
    ? "This server asks for an API key. It is kept in this tab until the tab is closed."
    : "The server does not accept this API key. Enter another one.";
  if (!(await askForKey(reason))) throw error;
  return call(method, path, { body, signal, accept });
}

/** The JSON of an answer. */
export async function json(method, path, options) {
  const response = await call(method, path, options);
  return response.json();
}

async function send(method, path, body, signal, accept) {
  const headers = {};
  if (accept) headers.accept = accept;
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key() !== null) headers.authorization = `Bearer ${key()}`;
  const payload = body === undefined ? undefined : JSON.stringify(body);
  try {
    const url = new URL(path, document.baseURI);
    return await fetch(url, { method, headers, body: payload, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Check that it runs and that you are connected.");
  }
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // Proxies answer in HTML; the status has to do.
  }
  const seconds = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  const wait = Number.isFinite(seconds) ? seconds : null;
  return new ApiError(words(response.status, error.message, wait), { status: response.status, code: error.code, wait });
}

/** An error that came in a stream. */
export const streamError = (error) => new ApiError(sentence(error.message ?? "The answer failed"), { code: error.code });

function words(status, message, wait) {
  const said = message ? sentence(message) : "";
  const later = wait === null ? "Try again later." : `Try again in ${duration(wait)}.`;
  switch (status) {
    case 401:
      return `The server needs a valid API key. ${said}`.trim();
    case 403:
      return `This is not allowed${key() === null ? "" : " with your API key"}. ${said}`.trim();
    case 429:
      return `Too many requests. ${said} ${later}`.replace("  ", " ");
    case 502:
    case 503:
    case 504:
      return `The server cannot answer now. ${said} ${later}`.replace("  ", " ");
    default:
      return said || `The server answered with status ${status}.`;
  }
}

function sentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}
