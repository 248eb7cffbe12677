// One save state out of two senders (drafts and submissions): the worst of them is shown.

const ORDER = ["saved", "saving", "offline", "error", "conflict", "signed-out"];

const TEXTS = {
  saved: "Saved",
  saving: "Saving",
  offline: "Offline: kept here",
  error: "Server error: kept here",
  conflict: "Conflict: kept here",
  "signed-out": "Signed out: kept here",
};

export class SaveStatus {
  constructor(onChange) {
    this.onChange = onChange;
    this.states = new Map();
    this.unsent = 0;
    // False once the browser has refused to keep something: then "kept here" would be a lie.
    this.canKeep = true;
  }

  set(sender, state) {
    this.states.set(sender, state);
    this.onChange(this);
  }

  setUnsent(count) {
    this.unsent = count;
    this.onChange(this);
  }

  kept(succeeded) {
    this.canKeep = succeeded;
    this.onChange(this);
  }

  get state() {
    const worst = Math.max(0, ...[...this.states.values()].map((state) => ORDER.indexOf(state)));
    return ORDER[worst];
  }

  get text() {
    const { state } = this;
    if (!this.canKeep && state !== "saved" && state !== "saving") return "Not stored: leave this page open";
    if (this.unsent > 1 && state !== "saving") return TEXTS[state].replace("kept", `${this.unsent} tiles kept`);
    return TEXTS[state];
  }
}

/** Waiting times between attempts, in ms: 1, 2, 4, 8, then every 15 s. */
export const backoff = (attempt) => Math.min(15000, 1000 * 2 ** attempt);
