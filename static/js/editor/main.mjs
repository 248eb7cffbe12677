// Puts the editor together: data from the page, parts to their elements, events to the session.

import { Announcer, ClassPanel, countText, InfoBlock, keepFocus, TopBar } from "./panels.mjs";
import { askReason, askVersion } from "./dialogs.mjs";
import { Atlas } from "./atlas.mjs";
import { BoxTable, FilmStrip } from "./strip.mjs";
import { Editor } from "./editor.mjs";
import { fillHelp } from "./help.mjs";
import { FilterPanel, LooksPanel } from "./looks.mjs";
import { Keyboard } from "./keyboard.mjs";
import { Minimap } from "./minimap.mjs";
import { Pointer } from "./pointer.mjs";
import { Preferences } from "./preferences.mjs";
import { Renderer } from "./canvas.mjs";
import { SaveStatus } from "./status.mjs";
import { Screen } from "./screen.mjs";
import { Session } from "./session.mjs";
import { setReader } from "./api.mjs";
import { Storage } from "./storage.mjs";
import { toTile } from "./view.mjs";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("editor-data").textContent);
const surface = byId("surface");

setReader(data.reader);
const preferences = new Preferences(data.preferences, data.urls.preferences);
const editor = new Editor(data.classes, preferences);
const topBar = new TopBar({
  progress: byId("progress"),
  progressText: byId("progress-text"),
  saveState: byId("save-state"),
  saveText: byId("save-text"),
  signIn: byId("sign-in"),
  time: byId("time"),
  tileTime: byId("tile-time"),
  sittingTime: byId("sitting-time"),
});
const announcer = new Announcer(editor, byId("announcer"));
const screen = new Screen(editor, topBar, announcer);
const status = new SaveStatus((changed) => screen.showStatus(changed));
const pointer = new Pointer(editor, surface);
new ClassPanel(editor, byId("classes"), byId("next-class"));
new InfoBlock(editor, {
  slide: byId("info-slide"),
  patient: byId("info-patient"),
  place: byId("info-place"),
  boxes: byId("info-boxes"),
  zoom: byId("info-zoom"),
  scaleBar: byId("scale-bar"),
});
const looks = new LooksPanel(editor, byId("looks"), surface);
const filter = new FilterPanel(editor, surface, {
  threshold: byId("threshold"),
  value: byId("threshold-value"),
  hidden: byId("threshold-hidden"),
  only: byId("only"),
  onlyText: byId("only-text"),
});
const minimap = new Minimap(editor, byId("minimap"), (text) => screen.notice(text));
new Atlas(editor, { title: byId("atlas-title"), list: byId("atlas") });
new BoxTable(editor, byId("boxes-table").tBodies[0]);
new FilmStrip(editor, byId("strip"));
const renderer = new Renderer(editor, {
  imageCanvas: byId("image-layer"),
  boxesCanvas: byId("boxes-layer"),
  frontCanvas: byId("front-layer"),
});
const session = new Session(data, editor, new Storage(data.reader, data.batch.id), status, {
  notice: (text) => screen.notice(text),
  waiting: () => screen.showWaiting(status),
  batch: showBatch,
  shown: showTile,
  ended: () => showEnd(),
  conflict: askAboutConflict,
});

// --- what the session shows ----------------------------------------------------------------------

let confirmedAt = null;

function showTile(work) {
  pointer.cancel();
  screen.setReady(false);
  screen.showTile(work);
  renderer.onceDrawn(() => {
    screen.setReady(work.image !== null);
    if (confirmedAt === null) return;
    performance.measure("confirm-to-next-tile", { start: confirmedAt, end: performance.now() });
    confirmedAt = null;
  });
}

function showBatch(batch, onTheirWay) {
  topBar.showBatch(batch, onTheirWay);
  if (session.ended) showEnd();
}

function showEnd() {
  screen.showEnd(session.batch, session.outbox.entries.length);
  screen.showFacts();
}

function askAboutConflict(work, answer) {
  screen.closeDialogs();
  askVersion(byId("conflict-dialog"), editor, work, answer, {
    onMine: () => {
      session.rebase(work, answer.theirs);
      confirm();
    },
    onTheirs: () => session.takeTheirs(work, answer.theirs),
  });
}

// --- what the reader does ------------------------------------------------------------------------

function confirm(event) {
  pointer.cancel();
  if (editor.locked) return;
  // What is not on screen is not confirmed with a key press: first all is shown.
  if (editor.shown.length < editor.accepted.length) return showAll();
  confirmedAt = event?.timeStamp ?? performance.now();
  topBar.showTime(editor.work);
  screen.clearNotice();
  session.confirm();
}

function showAll() {
  const hidden = editor.accepted.length - editor.shown.length;
  editor.showOnly(null);
  screen.notice(`${countText(hidden)} of other classes had been hidden. All are shown now: Space confirms.`);
}

function skip() {
  if (editor.locked) return;
  if (editor.work.task.revision > 0) return screen.notice("This tile is done: it can be corrected, but not skipped.");
  askReason(byId("skip-dialog"), (reason) => session.skip(reason));
}

const help = () => byId("help-dialog").showModal();

/** Escape: one thing at a time, the latest first. */
function cancel() {
  if (pointer.cancel() || screen.clearNotice()) return;
  if (editor.surroundings) minimap.toggleSurroundings();
  else if (editor.selected) editor.select(null);
  else if (editor.only !== null) editor.showOnly(null);
}

function copy() {
  const count = editor.copy();
  if (count) announcer.say(`${countText(count)} copied`);
}

function paste() {
  editor.paste(pointer.at && editor.work ? toTile(editor.view, pointer.at) : null);
}

/** Carries the focus round the parts of the page: Tab alone walks the boxes while the tile has it. */
function movePane(step) {
  const panes = [surface, byId("classes"), byId("threshold"), byId("strip"), byId("minimap"), byId("back")];
  const current = panes.findIndex((pane) => pane.contains(document.activeElement));
  const next = panes[(Math.max(0, current) + step + panes.length) % panes.length];
  (next.matches("ul") ? next.querySelector("button") : next)?.focus();
}

const commands = {
  confirm,
  skip,
  help,
  undo: () => editor.undo(),
  redo: () => editor.redo(),
  remove: () => editor.removeSelected(),
  fit: () => editor.fit(),
  "actual-size": () => editor.actualSize(),
  labels: () => editor.toggleLabels(),
  view: () => looks.toggle(),
  surroundings: () => minimap.toggleSurroundings(),
  "show-all": () => editor.showOnly(null),
  back: () => session.back(),
  forward: () => session.forward(),
  threshold: (direction) => filter.step(direction),
  cancel,
  copy,
  cut: () => {
    copy();
    editor.removeSelected();
  },
  paste,
  movePane,
  "retry-image": () => session.retryImage(),
  "dismiss-notice": () => screen.clearNotice(),
};
for (const button of document.querySelectorAll("[data-command]")) {
  keepFocus(button);
  button.addEventListener("click", (event) => commands[button.dataset.command](event));
}

new Keyboard(editor, surface, commands);
fillHelp(byId("help-dialog"), data.classes);
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector("[data-close]")?.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => surface.focus());
}

// --- saving and time -----------------------------------------------------------------------------

editor.on("boxes", () => session.saver.changed());
window.addEventListener("online", () => session.retry());
window.addEventListener("focus", () => session.retry());
window.addEventListener("pagehide", () => {
  session.flush();
  preferences.flush();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") session.saver.flush();
});
window.addEventListener("beforeunload", (event) => {
  if (status.unsent && status.state !== "saving") event.preventDefault();
});

const countInput = (kind) => editor.work?.clock.input(kind);
document.addEventListener("keydown", (event) => event.repeat || countInput("key"), { capture: true });
document.addEventListener("pointerdown", () => countInput("click"), { capture: true });
for (const type of ["pointermove", "wheel"]) {
  document.addEventListener(type, () => countInput(null), { capture: true, passive: true });
}

function tick() {
  topBar.showTime(editor.work);
  session.saver.renew();
}
setInterval(tick, 1000);
tick();

session.setBatch(data.batch);
screen.showStatus(status);
screen.showFacts();
session.start(data.task);
