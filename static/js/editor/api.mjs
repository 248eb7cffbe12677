// One way to talk to the server: JSON out, JSON in, and every failure named.

// Signing in again renews Django's token: the cookie then holds the new one, the page still the old.
function csrfToken() {
  const cookie = document.cookie.match(/(?:^|;\s*)csrftoken=([^;]+)/);
  return cookie ? decodeURIComponent(cookie[1]) : document.querySelector('meta[name="csrf-token"]').content;
}

let reader = "";

/** Whose work this page sends: with somebody else signed in meanwhile, the server takes none of it. */
export function setReader(name) {
  reader = name;
}

function outcomeOf(response, isJson) {
  // A session that has ended answers 401 or 403, or leads to the login page (HTML).
  if (response.status === 401 || response.status === 403) return "signed-out";
  if (response.ok) return isJson || response.status === 204 ? "ok" : "signed-out";
  if (response.status === 400) return "invalid";
  if (response.status === 409) return "conflict";
  if (response.status === 404 || response.status === 410) return "gone";
  return "error";
}

/**
 * POSTs JSON, or GETs where there is no body. Never throws; resolves to { outcome, status, data } with outcome one of
 * ok, invalid (400), conflict (409), gone (404, 410), signed-out, error (any other status), offline (no answer).
 */
async function ask(url, options) {
  try {
    const response = await fetch(url, { credentials: "same-origin", ...options });
    const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
    const data = isJson ? await response.json() : null;
    return { outcome: outcomeOf(response, isJson), status: response.status, data };
  } catch {
    return { outcome: "offline", status: 0, data: null };
  }
}

export const get = (url) => ask(url, { headers: { Accept: "application/json" } });

export function post(url, body, { keepalive = false } = {}) {
  const headers = {
    "Content-Type": "application/json",
    Accept: "application/json",
    "X-CSRFToken": csrfToken(),
    "X-Reader": encodeURIComponent(reader),
  };
  return ask(url, { method: "POST", keepalive, headers, body: JSON.stringify(body) });
}

/** The image decoded and ready to draw. Throws an Error whose message is fit to show. */
export async function loadImage(url) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin" });
  } catch {
    throw new Error("The image of this tile could not be fetched: the server does not answer.");
  }
  if (!response.ok) {
    throw new Error(`The image of this tile could not be fetched: the server answered ${response.status}.`);
  }
  try {
    return await createImageBitmap(await response.blob());
  } catch {
    throw new Error("The image of this tile could not be read: its file is damaged or is not an image.");
  }
}
