// Confirmed example cells of one class: that of the selected box, else of the box under the pointer, else of the next
// box to draw.

import { get } from "./api.mjs";
import { make, swatch } from "./panels.mjs";
import { findBox } from "./state.mjs";

// The pointer passes over many boxes: only where it rests is a class looked up.
const REST_MS = 150;

export class Atlas {
  constructor(editor, { title, list }) {
    this.editor = editor;
    this.title = title;
    this.list = list;
    this.answers = new Map(); // class id -> promise of its examples
    this.shown = null;
    this.timer = null;
    editor.on("selection boxes armed hover work", () => this.follow());
    editor.on("stored", () => this.forget());
  }

  get wanted() {
    const { selected, state, hovered, armed } = this.editor;
    return (selected ?? findBox(state, hovered))?.class ?? armed;
  }

  follow() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.show(this.wanted), REST_MS);
  }

  /** What has just been confirmed may be the first example of its class. */
  forget() {
    this.answers.clear();
    this.shown = null;
  }

  async show(classId) {
    if (classId === null || classId === this.shown || !this.editor.work) return;
    this.shown = classId;
    const cellClass = this.editor.classOf.get(classId);
    if (!cellClass) return;
    const answer = await this.answerOf(cellClass);
    if (this.shown !== classId) return;
    // A failure is asked for again the next time.
    if (!answer) this.answers.delete(classId);
    const name = make("span", "name", cellClass.name);
    this.title.replaceChildren(swatch(cellClass.colour), name, make("span", "count", countOf(answer)));
    this.list.replaceChildren(...(answer?.examples ?? []).map((example) => this.picture(example, cellClass)));
  }

  answerOf({ id, examples }) {
    if (!this.answers.has(id)) {
      this.answers.set(id, get(examples).then(({ outcome, data }) => (outcome === "ok" ? data : null)));
    }
    return this.answers.get(id);
  }

  picture({ crop, slide, patient }, { name }) {
    const item = make("li");
    const image = make("img");
    Object.assign(image, { src: crop, alt: `${name} of patient ${patient}`, title: `${slide}, patient ${patient}` });
    image.loading = "lazy";
    item.append(image);
    return item;
  }
}

function countOf(answer) {
  if (!answer) return "not to be had now";
  return answer.confirmed ? `${answer.confirmed} confirmed` : "none confirmed yet";
}
