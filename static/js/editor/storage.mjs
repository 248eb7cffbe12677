// Work kept in this browser (localStorage) until the server has it. Records carry the reader's name, so that on a
// shared computer nobody restores or sends the work of somebody else.

const PREFIX = "marrowloop";

export class Storage {
  constructor(reader, batch = null) {
    this.reader = reader;
    this.batch = batch;
  }

  /** False if the browser refuses (full, or storage switched off). */
  put(kind, task, record) {
    try {
      const { reader, batch } = this;
      localStorage.setItem(`${PREFIX}:${kind}:${task}`, JSON.stringify({ ...record, id: task, reader, batch }));
      return true;
    } catch {
      return false;
    }
  }

  get(kind, task) {
    return this.read(`${PREFIX}:${kind}:${task}`);
  }

  drop(kind, task) {
    try {
      localStorage.removeItem(`${PREFIX}:${kind}:${task}`);
    } catch {
      // Nothing was kept, so nothing is left behind.
    }
  }

  /** All records of a kind of this reader, of this batch or (no batch given) of all, the oldest first. */
  all(kind) {
    const start = `${PREFIX}:${kind}:`;
    const keys = Object.keys(localStorageOrEmpty()).filter((key) => key.startsWith(start));
    const records = keys.map((key) => this.read(key)).filter((record) => record !== null);
    const wanted = this.batch ? records.filter((record) => record.batch === this.batch) : records;
    return wanted.sort((first, second) => first.kept - second.kept);
  }

  read(key) {
    try {
      const record = JSON.parse(localStorage.getItem(key));
      return record?.reader === this.reader ? record : null;
    } catch {
      return null;
    }
  }
}

function localStorageOrEmpty() {
  try {
    return localStorage;
  } catch {
    return {};
  }
}
