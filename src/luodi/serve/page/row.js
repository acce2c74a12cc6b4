// Numbers and labels of a table's row.
import { make } from "./words.js";

export function cell(column) {
  const { schema } = column;
  const example = (schema.examples ?? schema.enum ?? [""])[0];
  const id = `cell-${column.name}`;
  const name = make("span", "cell-name", column.name);
  const element = make("label", "cell", [name]);
  element.title = schema.description ?? "";
  const entry = schema.enum ? choices(schema.enum) : typed(column, example);
  entry.id = id;
  entry.name = column.name;
  element.append(entry);
  const mayBeEmpty = [].concat(schema.type).includes("null");
  return {
    element,
    // undefined: left empty, and the column does not allow that
    value: () => {
      if (entry.value === "") return mayBeEmpty ? null : undefined;
      return column.kind === "number" && Number.isFinite(Number(entry.value)) ? Number(entry.value) : entry.value;
    },
    fill: () => (entry.value = example),
    clear: () => (entry.value = ""),
  };
}

function choices(values) {
  const entry = make("select");
  entry.append(...values.map((value) => new Option(value, value)));
  return entry;
}

function typed(column, example) {
  const entry = make("input");
  entry.type = "text";
  entry.autocomplete = "off";
  if (column.kind === "number") entry.inputMode = "decimal";
  entry.placeholder = String(example);
  return entry;
}
