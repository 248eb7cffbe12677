// Puts the editor together: data from the page, parts to their elements, events to the session.

import { askReason, askVersion } from "./dialogs.mjs";
import { Announcer, ClassPanel, countText, InfoBlock, keepFocus, TopBar } from "./panels.mjs";
import { BoxTable, FilmStrip } from "./strip.mjs";
import { Editor } from "./editor.mjs";
import { fillHelp } from "./help.mjs";
import { Keyboard } from "./keyboard.mjs";
import { Pointer } from "./pointer.mjs";
import { Renderer } from "./canvas.mjs";
import { SaveStatus } from "./status.mjs";
import { Session } from "./session.mjs";
import { Storage } from "./storage.mjs";

const byId = (id) => document.getElementById(id);
const page = document.documentElement;
const data = JSON.parse(byId("editor-data").textContent);

const surface = byId("surface");
const editor = new Editor(data.classes);
const storage = new Storage(data.reader, data.batch.id);
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
const status = new SaveStatus(showStatus);
const announcer = new Announcer(editor, byId("announcer"));
const renderer = new Renderer(editor, byId("image-layer"), byId("boxes-layer"));
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

let sittingSeconds = 0;
let confirmedAt = null;

const session = new Session(data, editor, storage, status, {
  notice,
  waiting: () => showWaiting(),
  batch: (batch, onTheirWay) => {
    topBar.showBatch(batch, onTheirWay);
    if (session.ended) showEnd(batch);
  },
  shown,
  ended: showEnd,
  conflict: (work, answer) => {
    closeDialogs();
    askVersion(byId("conflict-dialog"), editor, work, answer, {
      onMine: () => {
        session.rebase(work, answer.theirs);
        confirm();
      },
      onTheirs: () => session.takeTheirs(work, answer.theirs),
    });
  },
});

// --- acts -------------------------------------------------------------------------------------------------------------

function confirm() {
  pointer.cancel();
  const { work } = editor;
  if (!work || editor.locked) return;
  confirmedAt = performance.now();
  sittingSeconds += work.clock.activeSeconds();
  clearNotice();
  session.confirm();
}

function skip() {
  if (!editor.work || editor.locked) return;
  askReason(byId("skip-dialog"), (reason) => session.skip(reason));
}

function help() {
  byId("help-dialog").showModal();
}

const panes = [surface, byId("classes"), byId("strip"), byId("back")];

/** Carries the focus round the parts of the page: Tab alone walks the boxes while the tile has it. */
function movePane(step) {
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
  "dismiss-notice": () => clearNotice(),
};

for (const button of document.querySelectorAll("[data-command]")) {
  keepFocus(button);
  button.addEventListener("click", () => commands[button.dataset.command]());
}

new Keyboard(editor, surface, { confirm, skip, help, movePane, cancelDrag: () => pointer.cancel() });
fillHelp(byId("help-dialog"), data.classes);
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector("[data-close]")?.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => surface.focus());
}

function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
}

// --- what the reader sees ------------------------------------------------------------------------------------------------

function shown(work) {
  closeDialogs();
  pointer.cancel();
  byId("end").hidden = true;
  byId("waiting").hidden = true;
  byId("image-error").hidden = !work.imageError;
  byId("image-error-text").textContent = work.imageError ?? "";
  announcer.count = work.state.boxes.length;
  announcer.say(`Tile of slide ${work.task.tile.slide}. ${countText(work.state.boxes.length)}.`);
  surface.focus({ preventScroll: true });
  page.dataset.ready = "false";
  renderer.onceDrawn(() => {
    page.dataset.ready = String(work.image !== null);
    if (confirmedAt !== null) performance.measure("confirm-to-next-tile", { start: confirmedAt, end: performance.now() });
    confirmedAt = null;
  });
}

function notice(text) {
  byId("notice-text").textContent = text;
  byId("notice").hidden = false;
}

function clearNotice() {
  byId("notice").hidden = true;
  byId("notice-text").textContent = "";
}

function showWaiting() {
  byId("waiting").hidden = !session.waiting || session.ended;
  const troubled = !["saved", "saving"].includes(status.state);
  byId("waiting-text").textContent = troubled
    ? `${status.text}. This tile is sent as soon as the server can take it; the next one follows.`
    : "Getting the next tile";
}

function showEnd(batch) {
  byId("waiting").hidden = true;
  byId("end").hidden = false;
  const { done, total } = batch;
  const unsent = session.outbox.entries.length;
  byId("end-title").textContent = done + unsent >= total ? `Batch done: ${total} of ${total}.` : `No tile left for you: ${done} of ${total} done.`;
  byId("end-text").textContent = unsent
    ? `${unsent} of them still to be sent: kept in this browser, leave this page open.`
    : done >= total ? "Everything is stored." : "The others are with other readers, or were skipped.";
  page.dataset.ready = "true";
  byId("end-link").focus();
}

function showStatus() {
  topBar.showStatus(status);
  page.dataset.saveState = status.state;
  page.dataset.unsent = status.unsent;
  if (!byId("waiting").hidden) showWaiting();
}

/** What browser tests wait for, without timing. */
function showFacts() {
  const { work, view, state } = editor;
  Object.assign(page.dataset, {
    task: work?.task.id ?? "",
    boxes: state.boxes.length,
    selected: state.selected ?? "",
    armed: editor.classOf.get(editor.armed)?.code ?? "",
    locked: editor.locked,
    ended: session.ended,
  });
  surface.dataset.scale = view.scale;
  surface.dataset.x = view.x;
  surface.dataset.y = view.y;
  setEnabled("undo", !editor.locked && work?.history.canUndo);
  setEnabled("redo", !editor.locked && work?.history.canRedo);
  setEnabled("remove", !editor.locked && state.selected !== null);
  setEnabled("confirm", !editor.locked);
  setEnabled("skip", !editor.locked);
  document.querySelector('[data-command="labels"]').setAttribute("aria-pressed", String(editor.labelsShown));
}

function setEnabled(command, enabled) {
  document.querySelector(`.tools [data-command="${command}"]`).disabled = !enabled;
}

// --- events ----------------------------------------------------------------------------------------------------------------

editor.on("work boxes selection armed view display preview", showFacts);
editor.on("boxes", () => session.saver.changed());

const count = (kind) => () => editor.work?.clock.input(kind);
document.addEventListener("keydown", (event) => event.repeat || count("key")(), { capture: true });
document.addEventListener("pointerdown", count("click"), { capture: true });
for (const type of ["pointermove", "wheel"]) document.addEventListener(type, count(null), { capture: true, passive: true });

window.addEventListener("online", () => session.retry());
window.addEventListener("focus", () => session.retry());
window.addEventListener("pagehide", () => session.saver.flush());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") session.saver.flush();
});
window.addEventListener("beforeunload", (event) => {
  if (status.unsent && status.state !== "saving") event.preventDefault();
});

const tick = () => topBar.showTime(editor.work?.clock, sittingSeconds);
setInterval(tick, 1000);
tick();

session.setBatch(data.batch);
showStatus();
showFacts();
session.start(data.task);
