// The help dialog: all keys, made from the keyboard's own list so that the two cannot differ.

import { HELP, keyCap } from "./keyboard.mjs";
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
    for (const key of [keys].flat()) term.append(make("kbd", "", key));
    list.append(term, make("dd", "", text));
  }
  return list;
}

function classSection(classes) {
  const section = make("section");
  const list = make("dl");
  for (const { name, code, colour, hotkey } of classes) {
    const term = make("dt");
    term.append(make("kbd", "", keyCap(hotkey)));
    const text = make("dd", "", ` ${name} (${code})`);
    text.prepend(swatch(colour));
    list.append(term, text);
  }
  section.append(make("h3", "", "Classes"), list);
  return section;
}
