// Every key of the editor, and what the help says about it. Letters here are reserved: a taxonomy uses others as
// hotkeys.

// Key caps (one, or several in a list), and what they do.
export const HELP = [
  ["Tile", [
    ["Space", "Confirm the tile and show the next one"],
    [[",", "comma"], "Back to the tiles you did last, to correct them"],
    [[".", "full stop"], "Forward again"],
    ["S", "Skip the tile, with a reason"],
    ["Ctrl Z", "Undo"],
    [["Ctrl Shift Z", "Ctrl Y"], "Redo"],
  ]],
  ["Boxes", [
    [["Tab", "Shift Tab"], "Next, previous box: the least certain first"],
    ["Enter", "Mark the selected boxes as right and go to the next"],
    ["class key", "Set the class of the selected boxes; with none selected, of the next box you draw"],
    ["drag", "Draw a box, also inside another one"],
    ["drag a selected box", "Move it; its handles resize it"],
    [["click", "click again"], "Select the smallest box here; the next larger one"],
    [["Shift drag", "Shift click"], "Select several boxes; add one or take it out"],
    ["Ctrl A", "Select all boxes shown"],
    ["Arrows", "Move the boxes by 1 px (Shift: 10 px)"],
    ["Alt Arrows", "Resize the boxes by 1 px (Shift: 10 px)"],
    ["N", "Add a box in the middle of the view"],
    [["Ctrl C", "Ctrl X", "Ctrl V"], "Copy, cut, paste at the pointer, also on another tile"],
    ["Ctrl D", "Duplicate"],
    [["Delete", "Backspace"], "Delete"],
    ["Escape", "Stop a drag; close a message; select nothing; show all classes"],
  ]],
  ["View", [
    [["wheel", "+", "-"], "Zoom in, zoom out (two fingers: zoom and pan)"],
    ["F", "Fit the tile to the window"],
    ["Z", "One image pixel on one screen pixel"],
    ["W", "Show what lies around the tile on its slide"],
    ["middle or right button", "Pan; with nothing selected, the arrow keys pan"],
    ["H (hold)", "Hide the boxes"],
    ["L", "Show or hide the labels"],
    ["Alt class key", "Show only this class; again: all"],
    [["[", "]"], "Show pre-labels from a lower, higher score"],
    ["V", "Brightness, contrast, gamma, saturation"],
    [["F6", "Shift F6"], "Go to the next, previous part of the page (Tab then walks its controls)"],
    ["?", "This help"],
  ]],
];

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SLIDER_KEYS = new Set(["Home", "End", "PageUp", "PageDown"]);
const PAN_STEP = 40;
const ZOOM_STEP = 1.25;

/** A class's hotkey as it is written on a key cap: a capital letter in the taxonomy means Shift and the letter. */
export const keyCap = (hotkey) => (/[A-Z]/.test(hotkey) ? `⇧${hotkey}` : hotkey.toUpperCase());

export class Keyboard {
  /** `commands`: by name, see main.mjs; `cancel() -> whether there was something to cancel`; `surface`: the element
   * that stands for the tile. */
  constructor(editor, surface, commands) {
    this.editor = editor;
    this.surface = surface;
    this.commands = commands;
    this.hotkeys = new Map(editor.classes.map((cellClass) => [cellClass.hotkey, cellClass.id]));
    document.addEventListener("keydown", (event) => this.down(event));
    document.addEventListener("keyup", (event) => event.key.toLowerCase() === "h" && editor.hideBoxes(false));
    window.addEventListener("blur", () => editor.hideBoxes(false));
  }

  down(event) {
    if (event.isComposing || document.querySelector("dialog[open]") || isTypedInto(event)) return;
    const handled = event.ctrlKey || event.metaKey ? this.withControl(event) : this.plain(event);
    if (handled) event.preventDefault();
  }

  withControl(event) {
    if (event.altKey) return false;
    const { editor, commands } = this;
    const command = {
      z: () => (event.shiftKey ? editor.redo() : editor.undo()),
      y: () => editor.redo(),
      a: () => editor.selectAll(),
      c: () => commands.copy(),
      x: () => commands.cut(),
      v: () => commands.paste(),
      d: () => event.repeat || editor.duplicate(),
    }[event.key.toLowerCase()];
    command?.();
    return command !== undefined;
  }

  plain(event) {
    if (event.key in ARROWS) return this.arrow(event);
    if (event.altKey) return this.classKey(event, (id) => this.editor.showOnly(id));
    // On a button or a link, Tab, Space and Enter keep the meaning they have on every page.
    const onControl = event.target !== this.surface && event.target !== document.body;
    if (onControl && ["Tab", " ", "Enter"].includes(event.key)) return false;
    // Shift and a letter is a class or nothing: no command is set off by a finger that stayed on Shift.
    const isCapital = event.shiftKey && /^[a-z]$/i.test(event.key);
    return (!isCapital && this.command(event)) || this.classKey(event, (id) => this.editor.useClass(id));
  }

  arrow(event) {
    const { editor } = this;
    const step = event.shiftKey ? 10 : 1;
    const [dx, dy] = ARROWS[event.key].map((part) => part * step);
    if (!editor.selected) editor.pan((-dx * PAN_STEP) / step, (-dy * PAN_STEP) / step);
    else if (event.altKey) editor.stretch(dx, dy, event.repeat);
    else editor.nudge(dx, dy, event.repeat);
    return true;
  }

  command(event) {
    const { editor, commands } = this;
    const once = (command) => () => event.repeat || command();
    const command = {
      // Held down, Space would confirm tiles nobody has looked at.
      " ": once(() => commands.confirm(event)),
      ",": once(commands.back),
      ".": once(commands.forward),
      s: once(commands.skip),
      Tab: () => editor.walk(event.shiftKey ? -1 : 1),
      Enter: () => editor.confirmBox(),
      Delete: () => editor.removeSelected(),
      Backspace: () => editor.removeSelected(),
      Escape: () => commands.cancel(),
      F6: () => commands.movePane(event.shiftKey ? -1 : 1),
      "?": () => commands.help(),
      "+": () => editor.zoom(ZOOM_STEP),
      "=": () => editor.zoom(ZOOM_STEP),
      "-": () => editor.zoom(1 / ZOOM_STEP),
      "[": () => commands.threshold(-1),
      "]": () => commands.threshold(1),
      h: () => editor.hideBoxes(true),
      l: once(commands.labels),
      f: () => editor.fit(),
      z: () => editor.actualSize(),
      w: once(commands.surroundings),
      v: once(commands.view),
      n: once(() => editor.addAtCentre()),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    command?.();
    return command !== undefined;
  }

  classKey(event, use) {
    const classId = this.hotkeys.get(this.hotkeyOf(event)) ?? this.hotkeys.get(digitOf(event));
    if (classId === undefined) return false;
    if (!event.repeat) use(classId);
    return true;
  }

  /** As the taxonomy writes it: Shift counts, Caps Lock does not. */
  hotkeyOf({ key, shiftKey }) {
    return shiftKey ? key.toUpperCase() : key.toLowerCase();
  }
}

/** On keyboards where digits need Shift, and with Alt where it makes another sign, the plain digit key counts too. */
function digitOf({ shiftKey, code }) {
  return shiftKey ? undefined : /^(?:Digit|Numpad)(\d)$/.exec(code)?.[1];
}

/** Keys typed into a field are the field's; a slider takes the arrows and their like, as everywhere. */
function isTypedInto({ target, key }) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.matches("input[type=range]")) return key.startsWith("Arrow") || SLIDER_KEYS.has(key);
  return target.matches("input, textarea, select, [contenteditable]");
}
