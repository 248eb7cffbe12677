// Submissions and skips on their way: kept in this browser from the key press until the server has stored them, sent
// one by one, the oldest first. A repeated submission carries the same UUID, so that it counts once.

import { post } from "./api.mjs";
import { forSubmission } from "./state.mjs";
import { backoff } from "./status.mjs";
import { snapshot } from "./work.mjs";

export class Outbox {
  /** `handlers`: stored(entry, data), refused(entry, outcome, data), which may both show another tile; held(): the ids
   * of the tasks that this window has. */
  constructor(storage, status, handlers) {
    this.storage = storage;
    this.status = status;
    this.handlers = handlers;
    this.entries = [];
    this.sending = false;
    this.timer = null;
    this.attempt = 0;
  }

  /** Takes up what an earlier visit could not send. */
  restore() {
    for (const { task, payload, places, boxes, sequence } of this.storage.all("submit")) {
      this.entries.push({ task, payload, places, boxes, sequence, work: null, wantNext: false });
    }
    this.report();
    if (this.entries.length) this.send();
  }

  holds(taskId) {
    return this.entries.some((entry) => entry.task.id === taskId);
  }

  get taskIds() {
    return this.entries.map((entry) => entry.task.id);
  }

  /** `accepted`: those of the work's boxes that are confirmed. */
  submit(work, accepted, wantNext) {
    work.uuid ??= makeUuid();
    const { effort } = snapshot(work);
    const payload = { uuid: work.uuid, revision: work.revision, boxes: forSubmission(accepted), effort };
    // Where a refusal names the box of a place in the submission, this says which box of the tile it is.
    const places = accepted.map((box) => work.state.boxes.indexOf(box));
    this.add({ task: work.task, payload, places, work, wantNext });
  }

  skip(work, reason) {
    const { revision, effort } = snapshot(work);
    this.add({ task: work.task, payload: { reason, revision, effort }, places: [], work, wantNext: true });
  }

  add(entry) {
    const { task, payload, places, work } = entry;
    const { boxes, sequence } = snapshot(work);
    Object.assign(entry, { boxes, sequence });
    const record = { task: { ...task, draft: null }, payload, places, boxes, sequence, kept: Date.now() };
    this.status.kept(this.storage.put("submit", task.id, record));
    this.entries.push(entry);
    this.report();
    this.send();
  }

  report() {
    this.status.setUnsent(this.entries.length);
    const state = this.status.states.get("outbox") ?? "saved";
    if (!this.entries.length) this.status.set("outbox", "saved");
    else if (state === "saved") this.status.set("outbox", "saving");
  }

  retry() {
    if (this.entries.length && !this.sending) this.send();
  }

  async send() {
    clearTimeout(this.timer);
    if (this.sending) return;
    const entry = this.entries[0];
    if (!entry) return;
    this.sending = true;
    const more = entry.wantNext ? { want_next: true, except: this.handlers.held() } : {};
    const { outcome, data } = await post(addressOf(entry), { ...entry.payload, ...more });
    this.sending = false;
    if (["offline", "error", "signed-out"].includes(outcome)) return this.wait(outcome);
    this.settle(entry, outcome, data ?? {});
    this.send();
  }

  /** Leaving the page breaks off requests under way: sends them once more, to outlive it. The UUID makes that safe. */
  flush() {
    for (const entry of this.entries) post(addressOf(entry), entry.payload, { keepalive: true });
  }

  wait(outcome) {
    this.status.set("outbox", outcome);
    this.timer = setTimeout(() => this.send(), backoff(this.attempt));
    this.attempt += 1;
  }

  settle(entry, outcome, data) {
    this.attempt = 0;
    this.entries.shift();
    this.status.set("outbox", this.entries.length ? "saving" : "saved");
    if (outcome === "ok") {
      this.storage.drop("submit", entry.task.id);
      this.report();
      return this.handlers.stored(entry, data);
    }
    this.keepAsDraft(entry);
    this.report();
    this.handlers.refused(entry, outcome, data);
  }

  /** A refused submission goes on as a draft in this browser, so that closing the page now loses nothing. */
  keepAsDraft({ task, payload, boxes, sequence }) {
    const { revision, effort } = payload;
    const draft = { sequence: sequence + 1, revision, boxes, effort, kept: Date.now() };
    if (this.storage.put("draft", task.id, draft)) this.storage.drop("submit", task.id);
  }
}

/** A random UUID (RFC 9562, version 4); crypto.randomUUID exists only where the page came by HTTPS. */
function makeUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

const addressOf = ({ task, payload }) => ("uuid" in payload ? task.urls.submit : task.urls.skip);
