// Which tiles are open in which tab of this browser: two tabs of one reader get two tiles, never the same one.

export class Claims {
  constructor() {
    this.releases = new Map(); // task id -> function that lets go of it
  }

  /** True if no other tab has this tile; it is then held until `release`, or until this tab is gone. */
  async take(taskId) {
    // Browsers give locks only to pages that came by HTTPS or from the computer itself.
    if (this.releases.has(taskId) || !navigator.locks) return true;
    return new Promise((resolve) => {
      navigator.locks.request(`marrowloop:task:${taskId}`, { ifAvailable: true }, (lock) => {
        resolve(lock !== null);
        if (lock) return new Promise((release) => this.releases.set(taskId, release));
      });
    });
  }

  release(taskId) {
    this.releases.get(taskId)?.();
    this.releases.delete(taskId);
  }
}
