// Job fragments poll through htmx and replace themselves. This module says aloud when one ends, and notices
// when the answer is a whole page (the session has ended, so the sign-in page came back).

const stateBefore = new Map();

document.addEventListener("htmx:beforeSwap", (event) => {
  const answer = event.detail.serverResponse || "";
  if (/^\s*<!doctype html/i.test(answer)) {
    event.detail.shouldSwap = false;
    window.location.reload();
    return;
  }
  const job = event.detail.target;
  if (job?.dataset?.jobState) stateBefore.set(job.id, job.dataset.jobState);
});

document.addEventListener("htmx:afterSettle", (event) => {
  const job = event.detail.elt;
  if (!job?.dataset?.jobState) return;
  const before = stateBefore.get(job.id);
  stateBefore.delete(job.id);
  if (before && before !== job.dataset.jobState) {
    document.getElementById("announcement").textContent = job.dataset.jobSummary;
  }
});
