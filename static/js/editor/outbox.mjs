// Submissions on their way: kept in this browser from the key press until the server has stored them, sent one by one,
// the oldest first. A repeated one carries the same UUID, so that it counts once.

import { post } from "./api.mjs";
import { forSubmission } from "./state.mjs";
import { backoff } from "./status.mjs";
import { snapshot } from "./work.mjs";

export class Outbox {
  /** `handlers`: stored(entry, data), refused(entry, outcome, data); both may show another tile. */
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
    for (const { task, payload, boxes, sequence } of this.storage.all("submit")) {
      this.entries.push({ task, payload, boxes, sequence, work: null, wantNext: false });
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

  add(work, wantNext) {
    work.uuid ??= crypto.randomUUID();
    const { boxes, sequence, effort } = snapshot(work);
    const payload = { uuid: work.uuid, revision: work.revision, boxes: forSubmission(work.state.boxes), effort };
    const entry = { task: work.task, payload, boxes, sequence, work, wantNext };
    const record = { task: { ...work.task, draft: null }, payload, boxes, sequence, kept: Date.now() };
    this.status.kept(this.storage.put("submit", work.task.id, record));
    this.entries.push(entry);
    this.report();
    this.send();
    return entry;
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
    const body = entry.wantNext ? { ...entry.payload, want_next: true } : entry.payload;
    const { outcome, data } = await post(entry.task.urls.submit, body);
    this.sending = false;
    if (["offline", "error", "signed-out"].includes(outcome)) return this.wait(outcome);
    this.settle(entry, outcome, data ?? {});
    this.send();
  }

  /** Leaving the page breaks off requests under way: sends them once more, to outlive it. The UUID makes that safe. */
  flush() {
    for (const entry of this.entries) post(entry.task.urls.submit, entry.payload, { keepalive: true });
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
