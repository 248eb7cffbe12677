// One file on its way to the server, in chunks. The server knows how much of the file it has, so a broken connection, a
// reload or a restart on either side costs one chunk; see annotation/services/uploads.py.

const EDGE = 1024 * 1024; // of a file's beginning and end, which it is known by
const PAUSES = [1, 2, 4, 8, 15, 30]; // seconds before the next try
const STALLED = 60_000; // ms without a byte going out or an answer coming in
const DAMAGED_AT_MOST = 3;

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

const hex = (numbers) => [...numbers].map((number) => number.toString(16).padStart(2, "0")).join("");

export function crc32(bytes) {
  let value = -1;
  for (let index = 0; index < bytes.length; index += 1) value = TABLE[(value ^ bytes[index]) & 255] ^ (value >>> 8);
  return (~value >>> 0).toString(16).padStart(8, "0");
}

/** SHA-256; on plain http browsers give none, and a CRC-32 still tells of every damage that a network does. */
export async function checksum(buffer) {
  if (!crypto.subtle) return `crc-32:${crc32(new Uint8Array(buffer))}`;
  return `sha-256:${hex(new Uint8Array(await crypto.subtle.digest("SHA-256", buffer)))}`;
}

/** What the server knows a file by. Fails where the browser cannot read the file (a folder, or one that has gone). */
export async function describe(file) {
  const edges = new Blob([file.slice(0, EDGE), file.slice(Math.max(EDGE, file.size - EDGE))]);
  const fingerprint = await checksum(await edges.arrayBuffer());
  return { name: file.name, size: file.size, modified: file.lastModified, fingerprint };
}

// Signing in again renews Django's token: the cookie then holds the new one, the page still the old.
function token() {
  const cookie = document.cookie.match(/(?:^|;\s*)csrftoken=([^;]+)/);
  return cookie ? decodeURIComponent(cookie[1]) : document.querySelector("[name=csrfmiddlewaretoken]").value;
}

/** POSTs; resolves to { status, data }, with status 0 where no answer came and data null where it is no JSON. */
export function post(url, body, { headers = {}, onProgress = () => {}, signal } = {}) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    const none = () => resolve({ status: 0, data: null });
    let watch;
    const alive = () => {
      clearTimeout(watch);
      watch = setTimeout(() => request.abort(), STALLED);
    };
    request.open("POST", url);
    request.responseType = "text";
    for (const [name, value] of Object.entries({ "X-CSRFToken": token(), Accept: "application/json", ...headers })) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => {
      alive();
      onProgress(event.loaded);
    });
    request.addEventListener("loadend", () => clearTimeout(watch));
    request.addEventListener("error", none);
    request.addEventListener("abort", none);
    request.addEventListener("load", () => {
      const isJson = (request.getResponseHeader("Content-Type") ?? "").includes("json");
      resolve({ status: request.status, data: isJson ? JSON.parse(request.responseText) : null });
    });
    signal?.addEventListener("abort", () => request.abort());
    alive();
    request.send(body);
  });
}

export const postJson = (url, body) => post(url, JSON.stringify(body), { headers: { "Content-Type": "application/json" } });

/** What to tell the user of an answer that was not the one hoped for. */
export function problemOf({ status, data }) {
  if (data?.error) return data.error;
  if (status === 200 || status === 401 || status === 403) return "You are no longer signed in: sign in in another tab, then go on here.";
  if (status === 413) return "The proxy before the server refuses requests of this size: see MARROWLOOP_UPLOAD_CHUNK_KIB.";
  return status ? `The server answered ${status}.` : "The server could not be reached.";
}

export class Sending {
  /** upload: what the server said of it: { id, received, chunk, discard }. onChange is called whenever something has changed. */
  constructor(file, upload, chunkSize, onChange) {
    Object.assign(this, { file, upload, chunkSize, onChange, received: upload.received, sending: 0 });
    // state: ready, sending, waiting (for the next try), paused, sent (whole), imported, cancelled
    this.state = "ready";
    this.problem = "";
    this.failures = 0;
    this.measures = [];
    this.settleWhole();
  }

  get isOver() {
    return this.state === "imported" || this.state === "cancelled";
  }

  get bytes() {
    return this.received + this.sending;
  }

  /** Bytes a second over the last ten seconds; 0 while it is not known. */
  get speed() {
    const [first] = this.measures;
    const last = this.measures.at(-1);
    return last && last.at - first.at > 500 ? (1000 * (last.bytes - first.bytes)) / (last.at - first.at) : 0;
  }

  pause(problem = "") {
    clearTimeout(this.timer);
    this.to("paused", problem);
    this.aborter?.abort();
  }

  resume() {
    this.failures = 0;
    this.to("ready");
    this.settleWhole();
  }

  cancel() {
    clearTimeout(this.timer);
    this.to("cancelled");
    this.aborter?.abort();
    postJson(this.upload.discard, {});
  }

  /** Sends the next chunk. */
  async step() {
    this.to("sending");
    this.measures.push({ at: Date.now(), bytes: this.bytes });
    const { received } = this;
    const chunk = this.file.slice(received, received + this.chunkSize);
    let sum;
    try {
      sum = await checksum(await chunk.arrayBuffer());
    } catch {
      return this.pause("The file can no longer be read: was it moved or changed? Choose it again.");
    }
    if (this.state !== "sending") return undefined;
    this.aborter = new AbortController();
    // The slice itself, not the bytes that were read of it: the browser sends those about eight times as slowly.
    const answer = await post(`${this.upload.chunk}?offset=${received}`, chunk, {
      headers: { "Content-Type": "application/octet-stream", "X-Checksum": sum },
      onProgress: (sent) => this.measure(Math.min(sent, chunk.size)),
      signal: this.aborter.signal,
    });
    this.sending = 0;
    if (Number.isInteger(answer.data?.received)) this.goOn(answer.data.received);
    else if (this.state === "sending") this.failed(answer);
    return undefined;
  }

  measure(sent) {
    this.sending = sent;
    this.measures = this.measures.filter(({ at }) => Date.now() - at < 10_000);
    this.measures.push({ at: Date.now(), bytes: this.bytes });
    this.onChange(this);
  }

  // Where the server says that the file goes on: after this chunk, or elsewhere if another tab sends it too.
  goOn(received) {
    this.received = received;
    this.failures = 0;
    if (this.state === "sending") this.to("ready");
    this.settleWhole();
  }

  settleWhole() {
    if (this.state === "ready" && this.received === this.file.size) this.to("sent");
  }

  /** Tries again after a pause where that may help, else waits for the user. */
  failed(answer) {
    const { status } = answer;
    this.measures = [];
    this.failures += 1;
    const passes = status === 0 || status === 408 || status === 429 || (status >= 500 && status !== 507);
    if (!passes && !(status === 422 && this.failures <= DAMAGED_AT_MOST)) return this.pause(problemOf(answer));
    const seconds = PAUSES[Math.min(this.failures, PAUSES.length) - 1];
    this.to("waiting", `${problemOf(answer)} Trying again in ${seconds} s.`);
    this.timer = setTimeout(() => this.to(this.received === this.file.size ? "sent" : "ready"), 1000 * seconds);
    return undefined;
  }

  to(state, problem = "") {
    this.state = state;
    this.problem = problem;
    this.onChange(this);
  }
}
