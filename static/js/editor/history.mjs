// Undo and redo without limit within a tile. Boxes are immutable, so a step costs one array.
// A moment: { boxes, keys }, keys being those of the selected boxes.

export class History {
  constructor(boxes) {
    this.past = [];
    this.present = { boxes, keys: [] };
    this.future = [];
  }

  /** `before`: the keys selected before the change. `merge`: part of the step before it (a held arrow is one step). */
  record(boxes, keys, before, { merge = false } = {}) {
    if (!merge || !this.canUndo) this.past.push({ boxes: this.present.boxes, keys: before });
    this.present = { boxes, keys };
    this.future = [];
  }

  get canUndo() {
    return this.past.length > 0;
  }

  get canRedo() {
    return this.future.length > 0;
  }

  /** The moment to go back to, or null. */
  undo() {
    if (!this.canUndo) return null;
    this.future.push(this.present);
    this.present = this.past.pop();
    return this.present;
  }

  redo() {
    if (!this.canRedo) return null;
    this.past.push(this.present);
    this.present = this.future.pop();
    return this.present;
  }
}
