// How the tile looks: the sliders for brightness, contrast, gamma and saturation, and what is shown of the boxes: the
// score from which pre-labels appear, and the one class. All of it is told where it takes effect.

import { NEUTRAL } from "./picture.mjs";
import { isBelow } from "./state.mjs";

export const THRESHOLD_STEP = 0.05;

const twoDigits = (value) => value.toFixed(2);

/** The panel over the tile that the key V opens; it stays open while one works. */
export class LooksPanel {
  constructor(editor, panel, surface) {
    this.editor = editor;
    this.panel = panel;
    this.surface = surface;
    for (const name of Object.keys(NEUTRAL)) {
      const slider = this.slider(name);
      slider.addEventListener("input", () => editor.setPreferences({ [name]: Number(slider.value) }));
    }
    panel.querySelector("[data-reset]").addEventListener("click", () => editor.setPreferences(NEUTRAL));
    panel.querySelector("[data-close]").addEventListener("click", () => this.close());
    panel.addEventListener("keydown", (event) => this.key(event));
    editor.on("picture", () => this.update());
    this.update();
  }

  slider(name) {
    return this.panel.querySelector(`[name="${name}"]`);
  }

  update() {
    for (const name of Object.keys(NEUTRAL)) {
      const value = this.editor.preferences.values[name];
      this.slider(name).value = value;
      this.panel.querySelector(`[data-value="${name}"]`).textContent = twoDigits(value);
    }
  }

  key(event) {
    if (event.key === "Escape" || event.key.toLowerCase() === "v") {
      event.preventDefault();
      event.stopPropagation();
      this.close();
    }
  }

  toggle() {
    if (!this.panel.hidden) return this.close();
    this.panel.hidden = false;
    this.slider("brightness").focus();
  }

  close() {
    this.panel.hidden = true;
    this.surface.focus({ preventScroll: true });
  }
}

/** The slider of the score threshold and the line that says what is not shown. */
export class FilterPanel {
  constructor(editor, surface, { threshold, value, hidden, only, onlyText }) {
    this.editor = editor;
    this.elements = { threshold, value, hidden, only, onlyText };
    threshold.addEventListener("input", () => editor.setPreferences({ threshold: Number(threshold.value) }));
    // Let go by the pointer, it gives the keyboard back to the boxes.
    threshold.addEventListener("pointerup", () => surface.focus({ preventScroll: true }));
    editor.on("filter work boxes", () => this.update());
    this.update();
  }

  update() {
    const { editor } = this;
    const { threshold, value, hidden, only, onlyText } = this.elements;
    const limit = editor.preferences.values.threshold;
    threshold.value = limit;
    value.textContent = twoDigits(limit);
    const below = editor.state.boxes.filter((box) => isBelow(box, limit)).length;
    hidden.textContent = below ? `${below} below it: not confirmed` : "";
    only.hidden = editor.only === null;
    if (editor.only === null) return;
    const others = editor.accepted.length - editor.shown.length;
    onlyText.textContent = `Only ${editor.classOf.get(editor.only).name}: ${others} hidden`;
  }

  step(direction) {
    const next = this.editor.preferences.values.threshold + direction * THRESHOLD_STEP;
    this.editor.setPreferences({ threshold: Math.round(Math.max(0, Math.min(1, next)) * 100) / 100 });
  }
}
