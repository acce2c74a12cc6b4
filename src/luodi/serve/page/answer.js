// The answer: each target's value in large, its probabilities as bars that find their own order.
import { figure, make, share } from "./words.js";
import { marked } from "./piece.js";

const MOST = 10; // bars shown
const STEP = 30; // pixels from one bar to the next

// `whole`: of a target that is a piece of an input, that input's text.
export function showAnswer(place, answer, whole = () => undefined) {
  const known = new Map([...place.children].map((element) => [element.dataset.target, element]));
  for (const [name, target] of Object.entries(answer)) {
    const element = known.get(name) ?? place.appendChild(block(name));
    const value = element.querySelector(".value");
    const text = typeof target.value === "number" ? figure(target.value, 6) : String(target.value ?? "") || "—";
    value.textContent = text;
    value.dataset.length = text.length < 4 ? "short" : text.length < 11 ? "word" : "long";
    const chances = target.probabilities;
    const sure = chances ? chances[target.value] ?? 0 : target.probability;
    element.querySelector(".sure").textContent = sure === undefined ? "" : share(sure);
    element.querySelector(".within")?.remove();
    if (whole(name) !== undefined) element.append(marked(whole(name), target.start, target.end));
    if (chances) bars(element.querySelector(".bars"), chances);
  }
  const many = Object.keys(answer).length > 1;
  place.classList.toggle("many", many);
}

function block(name) {
  const value = make("output", "value");
  const head = make("div", "head", [value, make("div", "beside", [make("span", "target-name", name), make("span", "sure")])]);
  const element = make("div", "target", [head, make("ol", "bars")]);
  element.dataset.target = name;
  return element;
}

function bars(list, chances) {
  const order = Object.entries(chances).sort((one, other) => other[1] - one[1]).slice(0, MOST);
  const known = new Map([...list.children].map((row) => [row.dataset.label, row]));
  const widest = Math.max(...order.map(([label]) => label.length));
  list.style.setProperty("--label", `${Math.min(widest, 14)}ch`);
  list.style.height = `${order.length * STEP}px`;
  order.forEach(([label, chance], rank) => {
    const row = known.get(label) ?? list.appendChild(bar(label));
    known.delete(label);
    row.style.transform = `translateY(${rank * STEP}px)`;
    row.classList.toggle("first", rank === 0);
    row.setAttribute("aria-posinset", rank + 1);
    row.querySelector(".fill").style.transform = `scaleX(${chance})`;
    row.querySelector(".chance").textContent = share(chance);
  });
  for (const row of known.values()) row.remove();
}

function bar(label) {
  const track = make("span", "track", [make("span", "fill")]);
  const row = make("li", "bar", [make("span", "label", label), track, make("span", "chance")]);
  row.dataset.label = label;
  row.title = label;
  return row;
}
