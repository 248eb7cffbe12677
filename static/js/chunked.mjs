// Large files of the slides form: a row with bar, speed and time left for each, one chunk on its way at a time. What is
// whole is imported at once; only the files of a DICOM series wait for each other.

import { ask } from "./confirm.mjs";
import { Sending, describe, postJson, problemOf } from "./chunks.mjs";

const MEGABYTE = 1e6;
const HOUR = 3600;

const isSeries = (sending) => sending.file.name.toLowerCase().endsWith(".dcm");
const megabytes = (bytes) => (bytes / MEGABYTE).toLocaleString("en", { maximumFractionDigits: bytes < 100 * MEGABYTE ? 1 : 0 });

function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < HOUR) return `${Math.round(seconds / 60)} min`;
  return `${Math.floor(seconds / HOUR)} h ${Math.round((seconds % HOUR) / 60)} min`;
}

function words(sending) {
  const { state, problem, speed, bytes, file } = sending;
  if (state === "imported") return "Sent. Its import has begun.";
  if (state === "cancelled") return "Cancelled.";
  if (problem) return problem;
  if (state === "sent") return "Sent.";
  const parts = [`${megabytes(bytes)} of ${megabytes(file.size)} MB`];
  if (state === "paused") parts.push("paused");
  else if (speed && state !== "waiting") parts.push(`${megabytes(speed)} MB/s`, `${duration((file.size - bytes) / speed)} left`);
  return parts.join(" · ");
}

function show(row, sending) {
  const stopped = sending.state === "paused";
  const bar = row.querySelector("progress");
  bar.max = sending.file.size;
  bar.value = sending.bytes;
  bar.hidden = sending.isOver;
  const text = row.querySelector("[data-text]");
  text.textContent = words(sending);
  text.classList.toggle("upload-problem", Boolean(sending.problem));
  const said = sending.isOver ? words(sending) : sending.problem;
  if (said && row.dataset.said !== said) document.getElementById("announcement").textContent = `${sending.file.name}: ${said}`;
  row.dataset.said = said;
  row.dataset.state = sending.state;
  row.querySelector("[data-pause]").textContent = stopped ? "Resume" : "Pause";
  row.querySelectorAll("button").forEach((button) => {
    button.hidden = sending.isOver || sending.state === "finishing";
  });
}

function addRow(list, template, sending) {
  const row = template.content.firstElementChild.cloneNode(true);
  const { name } = sending.file;
  row.querySelector("[data-name]").textContent = name;
  row.querySelector("progress").setAttribute("aria-label", name);
  const [pause, cancel] = ["[data-pause]", "[data-cancel]"].map((selector) => row.querySelector(selector));
  pause.setAttribute("aria-describedby", (row.querySelector("[data-name]").id = `upload-${sending.upload.id}`));
  cancel.setAttribute("aria-describedby", `upload-${sending.upload.id}`);
  pause.addEventListener("click", () => (sending.state === "paused" ? sending.resume() : sending.pause()));
  cancel.addEventListener("click", async () => {
    const yes = await ask(`Cancel the upload of ${name}? What has come of it is thrown away.`, "Cancel the upload");
    if (yes && !sending.isOver) sending.cancel();
  });
  list.append(row);
  return row;
}

// The files that are imported together with this one.
const together = (sendings, one) => (isSeries(one) ? sendings.filter((other) => isSeries(other) && other.state !== "cancelled") : [one]);
const canFinish = (sendings, one) => one.state === "sent" && together(sendings, one).every(({ state }) => state === "sent");

async function finish(url, group) {
  group.forEach((one) => one.to("finishing"));
  const answer = await postJson(url, { uploads: group.map(({ upload }) => upload.id) });
  if (answer.status === 200 && answer.data) return group.forEach((one) => one.to("imported"));
  // A file that the server has lost bytes of goes on where it says.
  const lost = group.find(({ upload }) => upload.id === answer.data?.upload);
  if (!lost) return group.forEach((one) => one.failed(answer));
  lost.received = answer.data.received;
  return group.forEach((one) => one.resume());
}

/** Describes the files and has the server look at them all; fails with what to tell the user. */
async function start(form, files) {
  const described = [];
  for (const file of files) {
    try {
      described.push(await describe(file));
    } catch {
      throw new Error(`${file.name} cannot be read. A folder cannot be dropped: choose its files.`);
    }
  }
  const facts = Object.fromEntries([...new FormData(form)].filter(([, value]) => typeof value === "string"));
  const answer = await postJson(form.dataset.uploadStart, { files: described, facts });
  if (answer.status !== 200 || !answer.data) throw new Error(`${problemOf(answer)} Nothing was imported.`);
  return answer.data.uploads;
}

async function sendAll(sendings, finishUrl, changed) {
  while (!sendings.every((one) => one.isOver)) {
    const whole = sendings.find((one) => canFinish(sendings, one));
    const next = sendings.find(({ state }) => state === "ready");
    if (whole) await finish(finishUrl, together(sendings, whole));
    else if (next) await next.step();
    else await changed();
  }
}

/** Sends the files of the form; resolves when the page may be asked for anew, or to false if nothing was sent. */
export async function sendInChunks(form, files) {
  const list = form.querySelector("[data-upload-rows]");
  const template = form.querySelector("template[data-upload-row]");
  const uploads = await start(form, files);
  let wake = () => {};
  const rows = new Map();
  const onChange = (sending) => {
    if (rows.has(sending)) show(rows.get(sending), sending);
    wake();
  };
  const sendings = files.map((file, index) => new Sending(file, uploads[index], Number(form.dataset.uploadChunk), onChange));
  list.replaceChildren();
  for (const one of sendings) {
    rows.set(one, addRow(list, template, one));
    show(rows.get(one), one);
  }
  const stay = (event) => event.preventDefault();
  window.addEventListener("beforeunload", stay);
  await sendAll(sendings, form.dataset.uploadFinish, () => new Promise((resolve) => (wake = resolve)));
  window.removeEventListener("beforeunload", stay);
  return sendings.some(({ state }) => state === "imported");
}
