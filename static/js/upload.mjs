// A form with data-upload sends its files by XMLHttpRequest to show how far the upload is; without this script
// the same form posts as usual. The page that comes back (after a redirect, or with the form's errors) takes the
// place of the present one without a second request, so that the server's messages are not lost.
// A folder of images is many files: they are sent in parts, one after the other, but for a form with data-upload="whole",
// whose files belong together. Where the form takes chunks (data-upload-chunk, their size in bytes) and a file is
// larger than one, all of its files go up in chunks: see chunked.mjs.

import { sendInChunks } from "./chunked.mjs";

const MEGABYTE = 1024 * 1024;
const FILES_AT_ONCE = 100; // the server takes 200 files in one request

const sizeOf = (files) => files.reduce((sum, file) => sum + file.size, 0);

// What the server will refuse goes first, so that it is refused before anything is imported. Then DICOM files: those
// of one series must arrive together.
function order(file, suffixes) {
  const name = file.name.toLowerCase();
  if (file.size === 0 || !suffixes.some((suffix) => name.endsWith(suffix))) return 0;
  return name.endsWith(".dcm") ? 1 : 2;
}

function partsOf(input, whole) {
  if (whole) return [[...input.files]];
  const suffixes = input.accept.toLowerCase().split(",");
  const files = [...input.files].sort((first, second) => order(first, suffixes) - order(second, suffixes));
  const together = files.filter((file) => order(file, suffixes) < 2).length;
  const parts = [files.splice(0, Math.max(FILES_AT_ONCE, together))];
  while (files.length) parts.push(files.splice(0, FILES_AT_ONCE));
  return parts;
}

function showProgress(form, sent, total) {
  const bar = form.querySelector("[data-upload-progress] progress");
  const text = form.querySelector("[data-upload-text]");
  bar.max = total;
  bar.value = sent;
  // Once all is sent the server still copies and checks the files.
  text.textContent =
    sent < total ? `${(sent / MEGABYTE).toFixed(1)} of ${(total / MEGABYTE).toFixed(1)} MB` : "Sent; the server is checking the files…";
}

function setBusy(form, busy) {
  form.querySelector("[data-upload-progress]").hidden = !busy;
  form.querySelectorAll("button[type=submit]").forEach((button) => {
    button.disabled = busy;
  });
}

const whatWasTaken = (taken) => (taken ? `The first ${taken} files were taken, the others not.` : "Nothing was imported.");

function showProblem(form, text, taken) {
  setBusy(form, false);
  form.querySelector("[data-upload-problem]").textContent = `${text} ${whatWasTaken(taken)}`;
}

function showAnswer(answer, request, { taken = 0, told = [] }) {
  document.getElementById("page").replaceWith(answer.page);
  document.title = answer.title;
  window.history.replaceState(null, "", request.responseURL);
  window.htmx?.process(answer.page);
  answer.page.prepend(...told);
  const problem = answer.page.querySelector("[data-upload-problem]");
  if (taken && problem) problem.textContent = whatWasTaken(taken);
  answer.page.focus();
  window.scrollTo(0, 0);
}

// The page in an answer, or null where there is none to show.
function read(request) {
  const parsed = new DOMParser().parseFromString(request.responseText, "text/html");
  const page = parsed.getElementById("page");
  if (request.status >= 500 || request.status === 413 || !page) return null;
  return { page, title: parsed.title, taken: request.status === 200 && page.querySelector("form[data-upload]") !== null };
}

// Sends one part; the promise gives the request, or fails with what to tell the user.
function post(form, data, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded));
    request.addEventListener("load", () => resolve(request));
    request.addEventListener("error", () => reject(new Error("The upload failed: the server could not be reached. Try again.")));
    request.addEventListener("abort", () => reject(new Error("The upload was cancelled.")));
    form.querySelector("[data-upload-cancel]").onclick = () => request.abort();
    request.send(data);
  });
}

function refusal(status) {
  const reason = status === 413 ? "the files are larger than the server accepts" : `the server answered ${status}`;
  return `The upload failed: ${reason}.`;
}

async function send(form) {
  const input = form.querySelector("input[type=file]");
  const parts = partsOf(input, form.dataset.upload === "whole");
  const total = sizeOf(parts.flat());
  // The fields are read before the button is disabled: a disabled control is left out of them.
  const fields = new FormData(form);
  form.querySelector("[data-upload-problem]").textContent = "";
  setBusy(form, true);
  const told = [];
  let taken = 0;
  let before = 0;
  try {
    for (const [index, part] of parts.entries()) {
      fields.delete(input.name);
      part.forEach((file) => fields.append(input.name, file));
      const request = await post(form, fields, (loaded) => showProgress(form, Math.min(before + loaded, total), total));
      const answer = read(request);
      if (!answer) return showProblem(form, refusal(request.status), taken);
      if (!answer.taken || index === parts.length - 1) return showAnswer(answer, request, { taken: answer.taken ? 0 : taken, told });
      told.push(...answer.page.querySelectorAll(".message"));
      taken += part.length;
      before += sizeOf(part);
    }
  } catch (error) {
    showProblem(form, error.message, taken);
  }
}

async function sendLarge(form, files) {
  const problem = form.querySelector("[data-upload-problem]");
  const buttons = form.querySelectorAll("button[type=submit]");
  problem.textContent = "";
  buttons.forEach((button) => (button.disabled = true));
  try {
    if (await sendInChunks(form, files)) window.location.assign(form.dataset.uploadPage);
  } catch (error) {
    problem.textContent = error.message;
  }
  buttons.forEach((button) => (button.disabled = false));
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-upload]") || event.defaultPrevented) return;
  event.preventDefault();
  const files = [...form.querySelector("input[type=file]").files];
  const chunk = Number(form.dataset.uploadChunk ?? Infinity);
  if (files.some((file) => file.size > chunk)) sendLarge(form, files);
  else send(form);
});

// Files may be dropped anywhere on the form.
document.addEventListener("dragover", (event) => {
  const form = event.target.closest?.("form[data-upload]");
  if (form && event.dataTransfer.types.includes("Files")) event.preventDefault();
});

document.addEventListener("drop", (event) => {
  const input = event.target.closest?.("form[data-upload]")?.querySelector("input[type=file]");
  if (!input || !event.dataTransfer.files.length) return;
  event.preventDefault();
  input.files = event.dataTransfer.files;
});
