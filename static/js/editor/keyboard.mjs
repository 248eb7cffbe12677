// Every key of the editor, and what the help says about it. Letters here are reserved: a taxonomy uses others as
// hotkeys.

export const RESERVED_KEYS = new Set(["h", "l", "s", "f", "z", "n", "?", "+", "-", "=", ",", " "]);

export const HELP = [
  ["Tile", [
    ["Space", "Confirm the tile and show the next one"],
    ["S", "Skip the tile, with a reason"],
    ["Ctrl Z", "Undo"],
    ["Ctrl Shift Z, Ctrl Y", "Redo"],
  ]],
  ["Boxes", [
    ["Tab, Shift Tab", "Next, previous box: the least certain first"],
    ["Enter", "Mark the selected box as right and go to the next"],
    ["class key", "Set the class of the selected box; with none selected, of the next box you draw"],
    ["drag", "Draw a box, also inside another one"],
    ["drag the selected box", "Move it; its handles resize it"],
    ["click, click again", "Select the smallest box here; the next larger one"],
    ["Arrows", "Move the box by 1 px (Shift: 10 px)"],
    ["Alt Arrows", "Resize the box by 1 px (Shift: 10 px)"],
    ["N", "Add a box in the middle of the view"],
    ["Ctrl D", "Duplicate the box"],
    ["Delete, Backspace", "Delete the box"],
    ["Escape", "Stop a drag; close a message; select nothing"],
  ]],
  ["View", [
    ["wheel, + and -", "Zoom in, zoom out"],
    ["F", "Fit the tile to the window"],
    ["Z", "One image pixel on one screen pixel"],
    ["middle or right button", "Pan; with nothing selected, the arrow keys pan"],
    ["H (hold)", "Hide the boxes"],
    ["L", "Show or hide the labels"],
    ["F6, Shift F6", "Go to the next, previous part of the page (Tab then walks its buttons)"],
    ["?", "This help"],
  ]],
];

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PAN_STEP = 40;
const ZOOM_STEP = 1.25;

/** Class hotkeys that can be used: a reserved key keeps its own meaning. */
export function usableHotkeys(classes) {
  const hotkeys = new Map();
  for (const cellClass of classes) {
    const key = (cellClass.hotkey ?? "").toLowerCase();
    if (key && !RESERVED_KEYS.has(key) && !hotkeys.has(key)) hotkeys.set(key, cellClass.id);
  }
  return hotkeys;
}

export class Keyboard {
  /** `actions`: confirm, skip, help, movePane(step), cancel() -> whether there was
   * something to cancel; `surface`: the element that stands for the tile. */
  constructor(editor, surface, actions) {
    this.editor = editor;
    this.surface = surface;
    this.actions = actions;
    this.hotkeys = usableHotkeys(editor.classes);
    document.addEventListener("keydown", (event) => this.down(event));
    document.addEventListener("keyup", (event) => event.key.toLowerCase() === "h" && editor.hideBoxes(false));
    window.addEventListener("blur", () => editor.hideBoxes(false));
  }

  down(event) {
    if (event.isComposing || document.querySelector("dialog[open]") || isTextField(event.target)) return;
    const handled = event.ctrlKey || event.metaKey ? this.withControl(event) : this.plain(event);
    if (handled) event.preventDefault();
  }

  withControl(event) {
    if (event.altKey) return false;
    const { editor } = this;
    const command = {
      z: () => (event.shiftKey ? editor.redo() : editor.undo()),
      y: () => editor.redo(),
      d: () => editor.duplicate(),
    }[event.key.toLowerCase()];
    command?.();
    return command !== undefined;
  }

  plain(event) {
    if (event.key in ARROWS) return this.arrow(event);
    if (event.altKey) return false;
    // On a button or a link, Tab, Space and Enter keep the meaning they have on every page.
    const onControl = event.target !== this.surface && event.target !== document.body;
    if (onControl && ["Tab", " ", "Enter"].includes(event.key)) return false;
    return this.command(event) || this.classKey(event);
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
    const { editor, actions } = this;
    const commands = {
      // Held down, Space would confirm tiles nobody has looked at.
      " ": () => event.repeat || actions.confirm(),
      Tab: () => editor.walk(event.shiftKey ? -1 : 1),
      Enter: () => editor.confirmBox(),
      Delete: () => editor.removeSelected(),
      Backspace: () => editor.removeSelected(),
      Escape: () => actions.cancel() || editor.select(null),
      F6: () => actions.movePane(event.shiftKey ? -1 : 1),
      "?": () => actions.help(),
      "+": () => editor.zoom(ZOOM_STEP),
      "=": () => editor.zoom(ZOOM_STEP),
      "-": () => editor.zoom(1 / ZOOM_STEP),
      h: () => editor.hideBoxes(true),
      l: () => event.repeat || editor.toggleLabels(),
      s: () => event.repeat || actions.skip(),
      f: () => editor.fit(),
      z: () => editor.actualSize(),
      n: () => event.repeat || editor.addAtCentre(),
    };
    const command = commands[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    command?.();
    return command !== undefined;
  }

  classKey(event) {
    const digit = !event.shiftKey && /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
    // On keyboards where digits need Shift, the plain digit key counts as well.
    const classId = this.hotkeys.get(event.key.toLowerCase()) ?? this.hotkeys.get(digit);
    if (classId === undefined) return false;
    if (!event.repeat) this.editor.useClass(classId);
    return true;
  }
}

function isTextField(element) {
  return element instanceof HTMLElement && element.matches("input, textarea, select, [contenteditable]");
}
