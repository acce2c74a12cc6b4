// A text with the piece of it that answers, marked. Places count code points, as the server's do.
import { make } from "./words.js";

export function marked(text, start, end) {
  const letters = [...text];
  const part = (from, to) => letters.slice(from, to).join("");
  const parts = start === null ? [text] : [part(0, start), make("mark", "", part(start, end)), part(end)];
  const element = make("p", "within");
  element.append(...parts);
  return element;
}
