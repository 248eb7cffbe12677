// How this reader likes the editor: kept on the server, so that it is the same at every computer.

import { post } from "./api.mjs";

const DEBOUNCE_MS = 500;

export class Preferences {
  /** `values`: { brightness, contrast, gamma, saturation, threshold, labels } */
  constructor(values, url) {
    this.values = values;
    this.url = url;
    this.unsent = {};
    this.timer = null;
  }

  set(values) {
    this.values = { ...this.values, ...values };
    this.unsent = { ...this.unsent, ...values };
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), DEBOUNCE_MS);
  }

  /** Sent again with the next change if the server does not answer: they are a comfort, not work. */
  async send(options) {
    clearTimeout(this.timer);
    const values = this.unsent;
    if (!Object.keys(values).length) return;
    this.unsent = {};
    const { outcome } = await post(this.url, values, options);
    if (["offline", "error", "signed-out"].includes(outcome)) this.unsent = { ...values, ...this.unsent };
  }

  flush() {
    this.send({ keepalive: true });
  }
}
