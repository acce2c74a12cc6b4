// Asks for what is new of every run, and shows it.
import { showCurves } from "./curves.js";
import { showLayers, showLog, showRuns, showSteps } from "./panels.js";
import { Run } from "./run.js";
import { make, say, startSpeaking, whenSpoken } from "./words.js";

const at = (id) => document.getElementById(id);
const EVERY = 1000; // milliseconds between two questions; five times as long while nobody looks
const runs = (await ask("/runs")).map((facts) => new Run(facts));
const view = { runs, across: "epoch", log: false, ordinal: 0 };
let chosen = runs[0];

async function ask(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function renew(run) {
  let [changed, more] = [false, true];
  while (more) {
    const piece = await ask(`/runs/${run.facts.number}/events?stamp=${run.stamp}&at=${run.at}`);
    const told = piece.events.some((event) => ["step", "measured", "end"].includes(event.event));
    changed = run.take(piece) || changed;
    if (told) run.stale = true;
    more = piece.more;
  }
  if (run.stale) {
    run.evidence = await ask(`/runs/${run.facts.number}/evidence`);
    run.stale = false;
  }
  return changed;
}

async function turn() {
  try {
    const changed = await Promise.all(runs.map(renew));
    at("offline").hidden = true;
    if (changed.includes(true)) show();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // fetch says so when nobody answers
    at("offline").hidden = false;
  }
}

async function loop() {
  await turn();
  document.documentElement.dataset.ready = "yes";
  setTimeout(loop, document.hidden ? 5 * EVERY : EVERY);
}

function show() {
  showRuns(at("runs"), runs, chosen, choose);
  showChoices();
  showCurves(at("charts"), { ...view, chosen });
  for (const place of document.querySelectorAll("[data-run]")) place.textContent = runs.length > 1 ? chosen.facts.name : "";
  showSteps(at("steps"), chosen);
  showLayers(at("layers"), chosen, view.ordinal);
  showLog(at("log"), chosen);
  document.title = `${say(`state_${chosen.state}`)} · ${runs.map((run) => run.facts.name).join(", ")} · luodi watch`;
}

function choose(run) {
  chosen = run;
  show();
}

function showChoices() {
  const most = Math.max(...runs.map((run) => run.current_trainings().length));
  view.ordinal = Math.min(view.ordinal, Math.max(most - 1, 0));
  buttons(at("across"), ["epoch", "update", "minutes"].map((one) => [one, say(`across_${one}`)]), view.across, (one) => {
    view.across = one;
  });
  const longest = runs.find((run) => run.current_trainings().length === most);
  const names = most > 1 ? longest.current_trainings().map((one, place) => [place, one.name]) : [];
  buttons(at("trainings"), names, view.ordinal, (one) => {
    view.ordinal = one;
  });
  at("tools").hidden = most === 0;
}

function buttons(place, choices, now, pick) {
  const made = choices.map(([key, text]) => {
    const button = make("button", "", text);
    button.type = "button";
    button.setAttribute("aria-pressed", String(key === now));
    button.addEventListener("click", () => {
      pick(key);
      show();
    });
    return button;
  });
  place.replaceChildren(...made);
  place.hidden = !made.length;
}

at("log-scale").addEventListener("change", (event) => {
  view.log = event.target.checked;
  show();
});
at("title").textContent = "luodi watch";
startSpeaking();
whenSpoken(show);
await loop();
