// A form with data-confirm="text" asks before it is sent; data-confirm-label names the act on the button.
// The listener sits on the document and runs in the capture phase: forms that htmx swaps in later are covered,
// and htmx never sees a submission that was not confirmed.

const confirmed = new WeakSet();

function button(text, className, value) {
  const element = document.createElement("button");
  element.type = "submit";
  element.className = className;
  element.value = value;
  element.textContent = text;
  return element;
}

/** Asks in a dialog; resolves to whether the act was confirmed. */
export function ask(text, label) {
  const dialog = document.createElement("dialog");
  dialog.className = "dialog";
  dialog.setAttribute("aria-labelledby", "confirm-text");
  const form = document.createElement("form");
  form.method = "dialog";
  const question = document.createElement("p");
  question.id = "confirm-text";
  question.textContent = text;
  const actions = document.createElement("div");
  actions.className = "row row-end";
  // "Go back" comes first and takes the focus: Enter on an unread dialog does no harm.
  actions.append(button("Go back", "button", "no"), button(label, "button button-danger", "yes"));
  form.append(question, actions);
  dialog.append(form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}

// A polled fragment may have replaced the form while the question was open.
function livingForm(form) {
  return form.isConnected ? form : form.id && document.getElementById(form.id);
}

document.addEventListener(
  "submit",
  async (event) => {
    const form = event.target;
    if (!form.dataset.confirm || confirmed.delete(form)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const submitter = event.submitter;
    const label = form.dataset.confirmLabel || submitter?.textContent.trim() || "Go on";
    if (!(await ask(form.dataset.confirm, label))) return;
    const living = livingForm(form);
    if (!living) return;
    confirmed.add(living);
    living.requestSubmit(submitter?.isConnected ? submitter : null);
    // A form that fails its own validation sends no submit event: the next try must ask again.
    confirmed.delete(living);
  },
  { capture: true },
);
