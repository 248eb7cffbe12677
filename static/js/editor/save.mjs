// Drafts: every change is kept in this browser at once and sent to the server within a second. One request at a time;
// the latest state wins. When the server does not answer, the copy here is sent as soon as it does.

import { post } from "./api.mjs";
import { backoff } from "./status.mjs";
import { isReview, isUnchanged, snapshot } from "./work.mjs";

const DEBOUNCE_MS = 600;
const EFFORT_WORTH_SAVING_SECONDS = 1;
// While somebody looks at a tile and changes nothing, its lease is renewed this often.
const RENEW_AFTER_SECONDS = 60;

export class DraftSaver {
  /** `handlers`: conflict(work, data) is told of a 409, held(work) of a lease that somebody else has now. */
  constructor(storage, status, handlers) {
    this.storage = storage;
    this.status = status;
    this.handlers = handlers;
    this.work = null;
    this.sending = null;
    this.timer = null;
    this.attempt = 0;
  }

  /** From now on saves this work (null: none). Whatever is unsaved of the one before is sent first. */
  follow(work) {
    if (this.work && this.work !== work) this.flush();
    this.work = work;
    this.attempt = 0;
    this.clearTimer();
    this.status.set("draft", work?.conflict ? "conflict" : "saved");
    this.retry();
  }

  changed() {
    const { work } = this;
    work.sequence += 1;
    work.changed = work.sequence;
    this.keep(work);
    this.showSaving();
    if (!work.conflict) this.schedule(DEBOUNCE_MS);
  }

  /** Saving follows saved; a failure stays on show until an attempt has succeeded. */
  showSaving() {
    if (this.status.states.get("draft") === "saved") this.status.set("draft", "saving");
  }

  keep(work) {
    this.status.kept(this.storage.put("draft", work.task.id, { ...snapshot(work), kept: Date.now() }));
  }

  schedule(delay) {
    this.clearTimer();
    this.timer = setTimeout(() => this.send(), delay);
  }

  clearTimer() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  /** Tries again now, if something is waiting. */
  retry() {
    if (this.work && this.work.sequence > this.work.saved && !this.work.conflict) this.schedule(0);
  }

  async send() {
    this.clearTimer();
    const { work } = this;
    if (this.sending || !work || work.closed || work.conflict || work.sequence <= work.saved) return;
    const sequence = work.sequence;
    this.showSaving();
    this.sending = post(work.task.urls.draft, snapshot(work));
    const answer = await this.sending;
    this.sending = null;
    this.received(work, sequence, answer);
    // Another tile may have been opened, or another change made, while the request was under way.
    if (this.work && !this.timer && answer.outcome === "ok") this.send();
  }

  received(work, sequence, { outcome, data }) {
    if (outcome === "ok" && data.saved > sequence) this.overtaken(work, data.saved);
    else if (outcome === "ok") {
      work.saved = Math.max(work.saved, sequence);
      work.savedActive = work.clock.activeSeconds();
      if (work.sequence === sequence) this.storage.drop("draft", work.task.id);
    }
    // The tile has been submitted meanwhile: its draft no longer matters.
    if (work !== this.work || work.closed) return outcome === "ok" ? undefined : this.retry();
    if (outcome === "ok") return this.succeeded(work, data);
    if (outcome === "conflict") return this.conflicted(work, data);
    this.status.set("draft", ["offline", "signed-out"].includes(outcome) ? outcome : "error");
    this.schedule(backoff(this.attempt));
    this.attempt += 1;
  }

  /** The server has a later draft, from another computer of this reader: the last change counts, here it is again. */
  overtaken(work, saved) {
    work.sequence = Math.max(work.sequence, saved + 1);
    if (!work.closed) this.keep(work);
    this.handlers.overtaken(work);
  }

  succeeded(work, { held_by: heldBy = null }) {
    this.attempt = 0;
    if (heldBy !== work.heldBy) {
      work.heldBy = heldBy;
      if (heldBy) this.handlers.held(work);
    }
    this.status.set("draft", work.sequence > work.saved ? "saving" : "saved");
  }

  conflicted(work, data) {
    work.conflict = true;
    this.status.set("draft", "conflict");
    this.handlers.conflict(work, data ?? {});
  }

  /** Called every second: saves the time spent, and so renews the lease, also where no box has changed. */
  renew() {
    const { work } = this;
    if (!work || isReview(work) || work.clock.activeSeconds() - work.savedActive < RENEW_AFTER_SECONDS) return;
    if (work.sequence > work.saved || this.sending || work.conflict) return;
    work.sequence += 1;
    this.send();
  }

  /** The page may be about to close: keeps changes here, and sends them now, with the effort spent since the last one.
   * Effort alone is sent, not kept: a page that closes hears no answer, and would leave it here as work unsent. */
  flush() {
    const { work } = this;
    if (!work || work.closed || work.conflict || isUnchanged(work)) return;
    const effortUnsaved = work.clock.activeSeconds() - work.savedActive > EFFORT_WORTH_SAVING_SECONDS;
    if (work.sequence <= work.saved && !effortUnsaved) return;
    if (work.sequence <= work.saved) work.sequence += 1;
    if (work.changed > work.saved) this.keep(work);
    const sequence = work.sequence;
    const sent = post(work.task.urls.draft, snapshot(work), { keepalive: true });
    sent.then((answer) => this.received(work, sequence, answer));
  }

  /** The tile is submitted or skipped: its drafts are history. */
  close(work) {
    work.closed = true;
    if (work === this.work) this.clearTimer();
    this.storage.drop("draft", work.task.id);
    this.status.set("draft", "saved");
  }

  reopen(work) {
    work.closed = false;
    work.uuid = null;
  }
}
