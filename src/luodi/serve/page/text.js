// A text column: a box that grows with what is written.
import { make, say, whenSpoken } from "./words.js";

export function text(column) {
  const box = make("textarea", "text");
  box.id = `cell-${column.name}`;
  box.name = column.name;
  box.rows = 4;
  box.spellcheck = false;
  if (column.schema.maxLength) box.maxLength = column.schema.maxLength;
  const element = make("label", "cell", [make("span", "cell-name", column.name), box]);
  element.title = column.schema.description ?? "";
  whenSpoken(() => (box.placeholder = say("write_here")));
  return {
    element,
    box,
    // undefined: nothing is written yet
    value: () => (box.value === "" ? undefined : box.value),
    fill: () => (box.value = String((column.schema.examples ?? [""])[0])),
    clear: () => (box.value = ""),
  };
}
