// From tile to tile: confirm, skip, show the next, go back to one's own, and return to a tile the server has refused.

import { get, post } from "./api.mjs";
import { Claims } from "./claims.mjs";
import { Outbox } from "./outbox.mjs";
import { Queue } from "./queue.mjs";
import { DraftSaver } from "./save.mjs";
import { makeState, receiveBoxes, select } from "./state.mjs";
import { isReview, isUnchanged, makeWork, prepareImage } from "./work.mjs";

export class Session {
  /** `screen`: what the reader is told and asked: notice(text), conflict(work, answer), shown(work),
   * batch(batch, onTheirWay), waiting(), ended(batch). */
  constructor(data, editor, storage, status, screen) {
    this.editor = editor;
    this.storage = storage;
    this.status = status;
    this.screen = screen;
    this.urls = data.urls;
    this.batch = data.batch;
    this.waiting = false;
    this.ended = false;
    this.trail = []; // tasks done, the last one last, as far as they were done or looked at in this window
    this.backWanted = false;
    this.claims = new Claims();
    this.saver = new DraftSaver(storage, status, {
      conflict: (work, answer) => this.draftConflict(work, answer),
      held: ({ heldBy }) => screen.notice(`Your time on this tile ran out: ${heldBy} has it now. Your boxes are kept.`),
      overtaken: () => screen.notice("This tile is open at another computer of yours too: the last change counts."),
    });
    this.outbox = new Outbox(storage, status, {
      stored: (entry, answer) => this.stored(entry, answer),
      refused: (entry, outcome, answer) => this.refused(entry, outcome, answer),
      held: () => this.heldIds(),
    });
    const heldIds = () => this.heldIds();
    this.queue = new Queue(data.urls.next, storage, this.claims, heldIds, (batch) => this.queueFilled(batch));
  }

  async start(task) {
    this.outbox.restore();
    this.remember(task);
    this.waiting = true;
    // A tile still to be sent from an earlier visit is not shown as new.
    if (task && !this.outbox.holds(task.id)) await this.queue.offer(task);
    else if (task) this.queue.fill();
    else await this.queue.offer(null);
  }

  /** Tiles begun on an earlier visit, and given to nobody or to somebody else since: the comma key opens them. */
  remember(task) {
    const begun = this.storage.all("draft").map(({ id }) => id).filter((id) => id !== task?.id);
    this.trail.push(...begun);
    if (begun.length) this.screen.notice("This browser keeps work on a tile that you began: the comma key opens it.");
  }

  heldIds() {
    const current = this.editor.work && !this.editor.work.closed ? [this.editor.work.task.id] : [];
    return [...current, ...this.outbox.taskIds, ...this.queue.taskIds];
  }

  queueFilled(batch) {
    if (batch) this.setBatch(batch);
    this.advance();
  }

  /** Tiles done, with those on their way counted as done. */
  setBatch(batch) {
    // Answers can overtake each other: an older one must not turn the progress back.
    this.batch = { ...this.batch, ...batch, done: Math.max(this.batch.done, batch.done ?? 0) };
    this.screen.batch(this.batch, this.outbox.entries.filter((entry) => !isReview(entry)).length);
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
    if (isUnchanged(work)) return this.leave();
    this.outbox.submit(work, this.editor.accepted, this.wantsNext);
    this.close(work);
  }

  skip(reason) {
    const { work } = this.editor;
    this.outbox.skip(work, reason);
    this.close(work);
    this.screen.notice(`Skipped: ${reason}. The comma key brings the tile back.`);
  }

  get wantsNext() {
    return this.queue.works.length === 0 && !this.queue.busy;
  }

  /** The tile is on its way: on to the next. */
  close(work) {
    work.clock.pause();
    this.saver.close(work);
    if (!this.trail.includes(work.task.id)) this.trail.push(work.task.id);
    this.setBatch({});
    this.moveOn();
  }

  moveOn() {
    this.editor.lock(true);
    this.waiting = true;
    this.advance();
  }

  /** Shows the next tile if one is wanted and there is one; says what is being waited for if there is none. */
  advance() {
    if (!this.waiting && !this.ended) return;
    const next = this.queue.take();
    if (next) return this.show(next);
    if (this.queue.busy || this.ended) return;
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
    this.claims.release(entry.task.id);
    this.editor.tell("stored");
    if (answer.batch) this.setBatch(answer.batch);
    const next = "next" in answer ? answer.next : answer.task;
    if (entry.wantNext && next !== undefined) this.queue.offer(next, answer.batch);
    else this.advance();
    if (this.backWanted && !this.outbox.entries.length) this.back();
  }

  // --- back to one's own tiles ------------------------------------------------------------------

  /** The tile done before this one. */
  async back() {
    const { work } = this.editor;
    if (this.outbox.entries.length) return this.backLater();
    this.backWanted = false;
    const place = this.isOnTrail(work) ? this.trail.indexOf(work.task.id) : this.trail.length;
    if (place > 0) return this.look(await get(this.taskUrl(this.trail[place - 1])), work);
    const answer = await post(this.urls.previous, { except: this.trail });
    if (answer.outcome === "ok" && answer.data.task) this.trail.unshift(answer.data.task.id);
    this.look(answer, work);
  }

  isOnTrail(work) {
    return work !== null && !work.closed && this.trail.includes(work.task.id);
  }

  /** A tile cannot be corrected before the server has it. */
  backLater() {
    this.backWanted = this.status.state === "saving";
    if (this.backWanted) return;
    this.screen.notice("The last tile is still to be sent: it can be opened again once the server has it.");
  }

  /** The tile done after this one, and at last the one that was left for it. */
  async forward() {
    const { work } = this.editor;
    if (!this.isOnTrail(work)) return;
    const next = this.trail[this.trail.indexOf(work.task.id) + 1];
    if (next === undefined) this.leave();
    else this.look(await get(this.taskUrl(next)), work);
  }

  taskUrl(id) {
    return this.urls.task.replace("/0/", `/${id}/`);
  }

  /** Shows a task from an answer, unless the reader has gone elsewhere meanwhile. */
  async look({ outcome, data }, from) {
    const unanswered = "The tile cannot be opened: the server does not answer.";
    if (outcome !== "ok") return this.screen.notice(data?.error ?? unanswered);
    if (!data.task) return this.screen.notice("There is no earlier tile of yours in this batch.");
    const work = { ...makeWork(data.task, this.storage), revisited: true };
    await prepareImage(work);
    if (this.editor.work !== from) return;
    this.queue.remove(work.task.id);
    this.setAside(from);
    this.show(work);
    this.warnOfDraft(from);
  }

  /** A tile not yet done waits to be shown next; one looked at again needs no waiting. */
  setAside(work) {
    if (work && !work.closed && !isReview(work)) this.queue.putBack(work);
  }

  /** From a tile looked at again to the one that was left for it. */
  leave() {
    const { work } = this.editor;
    this.saver.follow(null);
    this.moveOn();
    this.warnOfDraft(work);
  }

  warnOfDraft(work) {
    if (!work || work.closed || !isReview(work) || isUnchanged(work)) return;
    this.screen.notice("What you changed on that tile is a draft: go back to it (comma) and press Space to store it.");
  }

  // --- refusals and conflicts -------------------------------------------------------------------

  async refused(entry, outcome, answer) {
    this.backWanted = false;
    this.setBatch(answer.batch ?? {});
    const work = await this.bringBack(entry, outcome === "conflict");
    if (outcome === "conflict" && answer.theirs) return this.screen.conflict(work, answer);
    const wrong = answer.boxes?.[0];
    if (wrong) this.editor.select(work.state.boxes[entry.places[wrong.index]]?.key ?? null);
    this.screen.notice(refusal(outcome, answer));
  }

  /** Shows a refused tile again, with the reader's boxes; the tile on screen waits its turn, unharmed. */
  async bringBack(entry, isConflict) {
    const work = entry.work ?? (await this.rebuild(entry));
    this.saver.reopen(work);
    work.sequence = Math.max(work.sequence, entry.sequence) + 1;
    work.conflict = isConflict;
    if (this.editor.work !== work) this.setAside(this.editor.work);
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
    const confirmed = theirs.boxes.map((box) => ({ ...box, touched: true }));
    const boxes = receiveBoxes(confirmed, work.task.boxes).map((box) => ({ ...box, key: box.key + nextKey }));
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
