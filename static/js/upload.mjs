// A form with data-upload sends its files by XMLHttpRequest to show how far the upload is; without this script
// the same form posts as usual. The page that comes back (after a redirect, or with the form's errors) takes the
// place of the present one without a second request, so that the server's messages are not lost.

const MEGABYTE = 1024 * 1024;

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

function showProblem(form, text) {
  setBusy(form, false);
  form.querySelector("[data-upload-problem]").textContent = text;
}

function showAnswer(form, request) {
  const parsed = new DOMParser().parseFromString(request.responseText, "text/html");
  const answer = parsed.getElementById("page");
  if (request.status >= 500 || request.status === 413 || !answer) {
    const reason = request.status === 413 ? "the files are larger than the server accepts" : `the server answered ${request.status}`;
    showProblem(form, `The upload failed: ${reason}. Nothing was imported.`);
    return;
  }
  document.getElementById("page").replaceWith(answer);
  document.title = parsed.title;
  window.history.replaceState(null, "", request.responseURL);
  window.htmx?.process(answer);
  answer.focus();
  window.scrollTo(0, 0);
}

function send(form) {
  // The data is read before the button is disabled: a disabled control is left out of it.
  const data = new FormData(form);
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.upload.addEventListener("progress", (event) => showProgress(form, event.loaded, event.total));
  request.addEventListener("load", () => showAnswer(form, request));
  request.addEventListener("error", () => showProblem(form, "The upload failed: the server could not be reached. Try again."));
  request.addEventListener("abort", () => showProblem(form, "The upload was cancelled. Nothing was imported."));
  form.querySelector("[data-upload-cancel]").onclick = () => request.abort();
  form.querySelector("[data-upload-problem]").textContent = "";
  setBusy(form, true);
  request.send(data);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-upload]") || event.defaultPrevented) return;
  event.preventDefault();
  send(form);
});
