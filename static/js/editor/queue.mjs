// Tiles fetched ahead: two tasks are leased and their images decoded while the reader looks at the tile before them.

import { post } from "./api.mjs";
import { backoff } from "./status.mjs";
import { makeWork, prepareImage } from "./work.mjs";

const AHEAD = 2;

export class Queue {
  /** `heldIds()`: tasks this window has already; `onFilled(batch)`: the queue has changed. */
  constructor(url, storage, claims, heldIds, onFilled) {
    this.url = url;
    this.storage = storage;
    this.claims = claims;
    this.heldIds = heldIds;
    this.onFilled = onFilled;
    this.works = [];
    this.elsewhere = new Set(); // tasks that another tab has, or had when it was asked
    this.askedAgain = false;
    this.preparing = 0;
    this.asking = false;
    this.exhausted = false;
    this.failure = null;
    this.attempt = 0;
    this.timer = null;
  }

  get busy() {
    return this.asking || this.preparing > 0;
  }

  get taskIds() {
    return [...this.works.map((work) => work.task.id), ...this.elsewhere];
  }

  take() {
    return this.works.shift() ?? null;
  }

  /** Puts a tile that was on screen back to be shown next. */
  putBack(work) {
    this.works.unshift(work);
  }

  /** A tile that is opened out of its turn does not come again. */
  remove(taskId) {
    this.works = this.works.filter((work) => work.task.id !== taskId);
  }

  /** Asks the server for a task if too few are held. */
  async fill() {
    clearTimeout(this.timer);
    if (this.works.length >= AHEAD || this.busy || this.exhausted) return;
    this.asking = true;
    const { outcome, data } = await post(this.url, { except: this.heldIds() });
    this.asking = false;
    this.failure = outcome === "ok" ? null : outcome;
    if (outcome !== "ok") return this.again();
    this.attempt = 0;
    await this.offer(data.task, data.batch);
  }

  again() {
    this.timer = setTimeout(() => this.fill(), backoff(this.attempt));
    this.attempt += 1;
    this.onFilled(null);
  }

  retry() {
    if (this.failure) this.fill();
    else if (this.exhausted && this.elsewhere.size) this.askAgain();
  }

  /** Tabs may have been closed meanwhile: what they had is free again. */
  askAgain() {
    this.elsewhere.clear();
    this.exhausted = false;
    this.fill();
  }

  /** Takes in a task from any answer; null says that the batch has no more for this reader. */
  async offer(task, batch = null) {
    if (!task && this.elsewhere.size && !this.askedAgain) {
      this.askedAgain = true;
      return this.askAgain();
    }
    if (!task) this.exhausted = true;
    else if (!this.heldIds().includes(task.id)) await this.prepare(task);
    this.onFilled(batch);
  }

  async prepare(task) {
    this.exhausted = false;
    this.preparing += 1;
    const isFree = await this.claims.take(task.id);
    if (isFree) {
      const work = makeWork(task, this.storage);
      await prepareImage(work);
      this.works.push(work);
      this.askedAgain = false;
    } else this.elsewhere.add(task.id);
    this.preparing -= 1;
    // Once more, until enough are held.
    setTimeout(() => this.fill());
  }
}
