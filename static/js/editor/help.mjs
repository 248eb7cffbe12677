// The help dialog: all keys, made from the keyboard's own list so that the two cannot differ.

import { HELP, usableHotkeys } from "./keyboard.mjs";
import { make, swatch } from "./panels.mjs";

export function fillHelp(dialog, classes) {
  const columns = dialog.querySelector(".help-columns");
  for (const [title, rows] of HELP) {
    const section = make("section");
    section.append(make("h3", "", title), keyList(rows));
    columns.append(section);
  }
  columns.append(classSection(classes));
}

function keyList(rows) {
  const list = make("dl");
  for (const [keys, text] of rows) {
    const term = make("dt");
    keys.split(", ").forEach((key) => term.append(make("kbd", "", key)));
    list.append(term, make("dd", "", text));
  }
  return list;
}

function classSection(classes) {
  const section = make("section");
  const list = make("dl");
  const hotkeys = new Map([...usableHotkeys(classes)].map(([key, id]) => [id, key]));
  for (const { id, name, code, colour } of classes) {
    const term = make("dt");
    if (hotkeys.has(id)) term.append(make("kbd", "", hotkeys.get(id).toUpperCase()));
    const text = make("dd", "", ` ${name} (${code})`);
    text.prepend(swatch(colour));
    list.append(term, text);
  }
  section.append(make("h3", "", "Classes"), list);
  return section;
}
