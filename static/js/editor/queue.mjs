// Tiles fetched ahead: one task is leased and its image decoded while the reader looks at the tile before it.

import { post } from "./api.mjs";
import { backoff } from "./status.mjs";
import { makeWork, prepareImage } from "./work.mjs";

const AHEAD = 1;

export class Queue {
  /** `heldIds()`: tasks this window has already; `onFilled(batch)`: the queue has changed. */
  constructor(url, storage, heldIds, onFilled) {
    this.url = url;
    this.storage = storage;
    this.heldIds = heldIds;
    this.onFilled = onFilled;
    this.works = [];
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

  take() {
    return this.works.shift() ?? null;
  }

  /** Puts a tile that was on screen back to be shown next. */
  putBack(work) {
    this.works.unshift(work);
  }

  /** Asks the server for a task if none is held. */
  async fill() {
    clearTimeout(this.timer);
    if (this.works.length >= AHEAD || this.busy || this.exhausted) return;
    this.asking = true;
    const except = [...this.heldIds(), ...this.works.map((work) => work.task.id)];
    const { outcome, data } = await post(this.url, { except });
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
  }

  /** Takes in a task from any answer; null says that the batch has no more for this reader. */
  async offer(task, batch = null) {
    if (!task) this.exhausted = true;
    else if (!this.isHeld(task.id)) await this.prepare(task);
    this.onFilled(batch);
  }

  isHeld(id) {
    return this.works.some((work) => work.task.id === id) || this.heldIds().includes(id);
  }

  async prepare(task) {
    this.exhausted = false;
    this.preparing += 1;
    const work = makeWork(task, this.storage);
    await prepareImage(work);
    this.preparing -= 1;
    this.works.push(work);
  }
}
