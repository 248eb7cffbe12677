// From tile to tile: confirm, skip, show the next, and come back to a tile the server has refused.

import { post } from "./api.mjs";
import { Outbox } from "./outbox.mjs";
import { Queue } from "./queue.mjs";
import { DraftSaver } from "./save.mjs";
import { makeState, receiveBoxes, select } from "./state.mjs";
import { makeWork, prepareImage } from "./work.mjs";

export class Session {
  /** `screen`: what the reader is told and asked: notice(text), conflict(work, answer), shown(work),
   * batch(batch, onTheirWay), waiting(), ended(batch). */
  constructor(data, editor, storage, status, screen) {
    this.editor = editor;
    this.storage = storage;
    this.screen = screen;
    this.batch = data.batch;
    this.waiting = false;
    this.ended = false;
    this.saver = new DraftSaver(storage, status, (work, answer) => this.draftConflict(work, answer));
    this.outbox = new Outbox(storage, status, {
      stored: (entry, answer) => this.stored(entry, answer),
      refused: (entry, outcome, answer) => this.refused(entry, outcome, answer),
    });
    this.queue = new Queue(data.urls.next, storage, () => this.heldIds(), (batch) => this.queueFilled(batch));
  }

  async start(task) {
    this.outbox.restore();
    this.waiting = true;
    // A tile still to be sent from an earlier visit is not shown as new.
    if (task && !this.outbox.holds(task.id)) await this.queue.offer(task);
    else if (task) this.queue.fill();
    else await this.queue.offer(null);
  }

  heldIds() {
    const current = this.editor.work && !this.editor.work.closed ? [this.editor.work.task.id] : [];
    return [...current, ...this.outbox.taskIds];
  }

  queueFilled(batch) {
    if (batch) this.setBatch(batch);
    this.advance();
  }

  /** Tiles done, with those on their way counted as done. */
  setBatch(batch) {
    // Answers can overtake each other: an older one must not turn the progress back.
    this.batch = { ...this.batch, ...batch, done: Math.max(this.batch.done, batch.done ?? 0) };
    this.screen.batch(this.batch, this.outbox.entries.filter((entry) => entry.task.revision === 0).length);
  }

  show(work) {
    this.editor.work?.clock.pause();
    this.waiting = false;
    this.ended = false;
    this.saver.follow(work);
    work.clock.resume();
    this.editor.show(work);
    this.screen.shown(work);
    this.queue.fill();
  }

  async retryImage() {
    const { work } = this.editor;
    await prepareImage(work);
    if (this.editor.work === work) this.show(work);
  }

  confirm() {
    const { work } = this.editor;
    if (!work || this.editor.locked) return;
    work.clock.pause();
    const wantNext = this.queue.works.length === 0 && !this.queue.busy;
    const entry = this.outbox.add(work, wantNext);
    this.saver.close(work);
    this.setBatch({});
    this.moveOn();
    return entry;
  }

  async skip(reason) {
    const { work } = this.editor;
    this.editor.lock(true);
    const { outcome, data } = await post(work.task.urls.skip, { reason });
    if (outcome !== "ok") {
      this.editor.lock(false);
      const unanswered = "The tile was not skipped: the server does not answer. Your boxes are kept.";
      return this.screen.notice(data?.error ?? unanswered);
    }
    this.saver.close(work);
    this.moveOn();
    await this.queue.offer(data.task, data.batch);
  }

  moveOn() {
    this.editor.lock(true);
    this.waiting = true;
    this.advance();
  }

  /** Shows the next tile if one is wanted and there is one; says what is being waited for if there is none. */
  advance() {
    if (!this.waiting) return;
    const next = this.queue.take();
    if (next) return this.show(next);
    if (this.queue.busy) return;
    if (this.editor.work && this.outbox.holds(this.editor.work.task.id)) return this.screen.waiting();
    if (this.queue.failure) return this.screen.waiting();
    if (this.queue.exhausted) return this.end();
    this.queue.fill();
  }

  end() {
    this.waiting = false;
    this.ended = true;
    this.saver.follow(null);
    this.editor.show(null);
    this.screen.ended(this.batch);
  }

  stored(entry, answer) {
    this.storage.drop("draft", entry.task.id);
    if (answer.batch) this.setBatch(answer.batch);
    if (entry.wantNext && "next" in answer) this.queue.offer(answer.next, answer.batch);
    else this.advance();
  }

  async refused(entry, outcome, answer) {
    this.setBatch(answer.batch ?? {});
    const work = await this.bringBack(entry, outcome === "conflict");
    if (outcome === "conflict" && answer.theirs) return this.screen.conflict(work, answer);
    const wrong = answer.boxes?.[0];
    if (wrong) this.editor.select(work.state.boxes[wrong.index]?.key ?? null);
    this.screen.notice(refusal(outcome, answer));
  }

  /** Shows a refused tile again, with the reader's boxes; the tile on screen waits its turn, unharmed. */
  async bringBack(entry, isConflict) {
    const work = entry.work ?? (await this.rebuild(entry));
    this.saver.reopen(work);
    work.sequence = Math.max(work.sequence, entry.sequence) + 1;
    work.conflict = isConflict;
    const current = this.editor.work;
    if (current && current !== work && !current.closed) this.queue.putBack(current);
    this.show(work);
    return work;
  }

  async rebuild(entry) {
    const work = makeWork(entry.task, this.storage);
    await prepareImage(work);
    return work;
  }

  draftConflict(work, answer) {
    if (answer.theirs) return this.screen.conflict(work, answer);
    const unexplained = "This tile has been changed in another window. Your boxes are kept in this browser.";
    this.screen.notice(answer.error ?? unexplained);
  }

  /** Bases the reader's work on the other version's revision: submitting it now supersedes that version. */
  rebase(work, theirs) {
    work.revision = theirs.revision;
    work.conflict = false;
  }

  /** Loads the other version as a step that can be undone, so that neither is lost. */
  takeTheirs(work, theirs) {
    this.rebase(work, theirs);
    const { nextKey } = work.state;
    const boxes = receiveBoxes(theirs.boxes, work.task.boxes).map((box) => ({ ...box, key: box.key + nextKey }));
    this.editor.commit(select({ ...makeState(boxes), walked: null }, null));
    this.screen.notice("Their boxes are shown now. Space confirms them; Ctrl Z brings yours back.");
  }

  /** The page may be about to close. */
  flush() {
    this.saver.flush();
    this.outbox.flush();
  }

  retry() {
    this.saver.retry();
    this.outbox.retry();
    this.queue.retry();
  }
}

function refusal(outcome, answer) {
  const [wrong, ...others] = answer.boxes ?? [];
  const unexplained = outcome === "gone" ? "This tile is no longer yours to label." : "The server refused this tile.";
  const first = answer.error ?? unexplained;
  if (!wrong) return `Not stored: ${first}`;
  const more = others.length ? ` ${others.length} more after it.` : "";
  return `Not stored: ${first} Box ${wrong.index + 1}: ${wrong.error}${more}`;
}
