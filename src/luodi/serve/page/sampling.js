// The rules of sampling, as the request's schema has them: an entry a rule, its default as the hint.
import { make, say, whenSpoken } from "./words.js";

export function sampling(columns) {
  const entries = new Map(columns.map((column) => [column.name, entry(column)]));
  const summary = make("summary");
  const grid = make("div", "row", [...entries.values()].map((one) => one.element));
  const element = make("details", "sampling", [summary, grid]);
  whenSpoken(() => (summary.textContent = say("sampling")));
  return {
    element,
    // What was filled in; the bundle has its own value for the others.
    value: () => Object.fromEntries([...entries].map(([name, one]) => [name, one.value()]).filter(([, value]) => value !== undefined)),
  };
}

function entry(column) {
  const { schema } = column;
  const list = schema.type === "array";
  const box = make("input");
  [box.type, box.name, box.autocomplete] = ["text", column.name, "off"];
  if (!list) box.inputMode = "decimal";
  box.placeholder = list ? "…" : String(schema.default ?? "");
  const element = make("label", "cell", [make("span", "cell-name", column.name), box]);
  if (schema.description) element.title = schema.description;
  return {
    element,
    value: () => {
      if (box.value.trim() === "") return undefined;
      if (list) return [box.value.replaceAll("\\n", "\n")];
      return Number.isFinite(Number(box.value)) ? Number(box.value) : box.value;
    },
  };
}
