// Puts the editor together: data from the page, parts to their elements, events to the session.

import { Announcer, ClassPanel, InfoBlock, keepFocus, TopBar } from "./panels.mjs";
import { askReason, askVersion } from "./dialogs.mjs";
import { BoxTable, FilmStrip } from "./strip.mjs";
import { Editor } from "./editor.mjs";
import { fillHelp } from "./help.mjs";
import { Keyboard } from "./keyboard.mjs";
import { Pointer } from "./pointer.mjs";
import { Renderer } from "./canvas.mjs";
import { SaveStatus } from "./status.mjs";
import { Screen } from "./screen.mjs";
import { Session } from "./session.mjs";
import { Storage } from "./storage.mjs";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("editor-data").textContent);
const surface = byId("surface");

const editor = new Editor(data.classes);
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
const screen = new Screen(editor, topBar, new Announcer(editor, byId("announcer")));
const status = new SaveStatus((changed) => screen.showStatus(changed));
const pointer = new Pointer(editor, surface);
new ClassPanel(editor, byId("classes"), byId("next-class"));
new InfoBlock(editor, {
  slide: byId("info-slide"),
  patient: byId("info-patient"),
  place: byId("info-place"),
  boxes: byId("info-boxes"),
  zoom: byId("info-zoom"),
});
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

function confirm() {
  pointer.cancel();
  if (editor.locked) return;
  confirmedAt = performance.now();
  topBar.showTime(editor.work);
  screen.clearNotice();
  session.confirm();
}

function skip() {
  if (!editor.locked) askReason(byId("skip-dialog"), (reason) => session.skip(reason));
}

const help = () => byId("help-dialog").showModal();
const cancel = () => pointer.cancel() || screen.clearNotice();

/** Carries the focus round the parts of the page: Tab alone walks the boxes while the tile has it. */
function movePane(step) {
  const panes = [surface, byId("classes"), byId("strip"), byId("back")];
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
  "retry-image": () => session.retryImage(),
  "dismiss-notice": () => screen.clearNotice(),
};
for (const button of document.querySelectorAll("[data-command]")) {
  keepFocus(button);
  button.addEventListener("click", () => commands[button.dataset.command]());
}

new Keyboard(editor, surface, { confirm, skip, help, movePane, cancel });
fillHelp(byId("help-dialog"), data.classes);
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector("[data-close]")?.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => surface.focus());
}

// --- saving and time -----------------------------------------------------------------------------

editor.on("boxes", () => session.saver.changed());
window.addEventListener("online", () => session.retry());
window.addEventListener("focus", () => session.retry());
window.addEventListener("pagehide", () => session.flush());
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

const tick = () => topBar.showTime(editor.work);
setInterval(tick, 1000);
tick();

session.setBatch(data.batch);
screen.showStatus(status);
screen.showFacts();
session.start(data.task);
