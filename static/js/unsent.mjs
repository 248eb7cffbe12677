// Work that the server could not take yet is kept in this browser; the editor sends it when its batch is opened. Every
// page says so, so that nobody forgets it.

import { Storage } from "./editor/storage.mjs";

const banner = document.getElementById("unsent");

function countByBatch(records) {
  const counts = new Map();
  for (const { batch } of records) counts.set(batch, (counts.get(batch) ?? 0) + 1);
  return counts;
}

function linkTo(batch, count) {
  const link = document.createElement("a");
  link.href = banner.dataset.url.replace("/0/", `/${batch}/`);
  link.textContent = `Send ${count === 1 ? "it" : `these ${count}`}`;
  return link;
}

function show() {
  const storage = new Storage(banner.dataset.reader);
  const records = [...storage.all("submit"), ...storage.all("draft")];
  banner.hidden = records.length === 0;
  if (banner.hidden) return;
  const tiles = records.length === 1 ? "1 tile" : `${records.length} tiles`;
  const links = [...countByBatch(records)].flatMap(([batch, count]) => [linkTo(batch, count), " "]);
  banner.replaceChildren(`Your work on ${tiles} is kept in this browser and not yet with the server. `, ...links);
}

if (banner) {
  show();
  window.addEventListener("storage", show);
}
