// The page of one bundle: built from /about, it asks /predict and shows what comes back.
import { showAnswer } from "./answer.js";
import { board } from "./board.js";
import { showFacts, snippet } from "./facts.js";
import { picture } from "./picture.js";
import { cell } from "./row.js";
import { talk } from "./talk.js";
import { text } from "./text.js";
import { figure, make, say, startSpeaking, whenSpoken } from "./words.js";

const at = (id) => document.getElementById(id);
const about = await (await fetch("/about")).json();
const isText = (column) => column.kind === "tokens" || (!column.kind && column.schema.type === "string"); // a part of one
const texts = about.inputs.filter(isText);
const pieces = new Map(about.targets.map((target) => [target.name, target.schema["x-piece-of"]]));
const inputs = new Map(about.writes ? [] : about.inputs.map((column) => [column.name, entryOf(column)]));
const images = about.inputs.filter((column) => column.kind === "image");
const rows = about.inputs.filter((column) => column.kind !== "image");
const answer = at("answer");
let turn = 0; // a newer question makes older answers void

function entryOf(column) {
  if (column.kind === "image") return (column.shape[0] === 1 ? board : picture)(column, () => void ask(false));
  return column.kind === "tokens" ? text(column) : cell(column);
}

function build() {
  document.title = `${about.name} · luodi`;
  at("name").textContent = about.name;
  at("lineage").replaceChildren(...about.steps.map((step) => make("span", "step", step)));
  at("snippet").textContent = snippet(about);
  whenSpoken(() => showFacts(at("facts"), about));
  if (about.writes) return talk(about, show, refuse);
  const table = make("div", "row");
  const wide = (column) => column.kind === "image" || isText(column);
  for (const column of about.inputs) (wide(column) ? at("inputs") : table).append(inputs.get(column.name).element);
  if (table.childElementCount) at("inputs").append(table);
  at("send-row").hidden = !rows.length;
  document.querySelector("main").classList.toggle("tall", rows.length > 8);
  whenSpoken(() => {
    at("ask-title").textContent = say(askWords());
    at("waiting").textContent = say(waitingWords());
  });
  return () => ask(true);
}

function waitingWords() {
  if (!rows.length) return drawn() ? "empty" : "empty_picture";
  return texts.length === rows.length && !images.length ? "empty_text" : "empty_row";
}

const drawn = () => images.some((column) => column.shape[0] === 1);

function askWords() {
  if (images.length && rows.length) return "ask_mixed";
  if (texts.length && texts.length === rows.length) return "ask_text";
  if (rows.length) return "ask_row";
  return drawn() ? "ask_draw" : "ask_picture";
}

// `asked`: the person pressed the button, so missing values are told; else the page waits for them.
async function ask(asked) {
  turn += 1;
  const mine = turn;
  const request = Object.fromEntries([...inputs].map(([name, entry]) => [name, entry.value()]));
  const lost = Object.keys(request).find((name) => request[name] === undefined || (request[name] === null && isImage(name)));
  if (lost !== undefined) {
    if (asked) refuse({ column: lost, message: say("missing"), expected: null });
    else show("waiting");
    return;
  }
  const started = performance.now();
  try {
    const response = await fetch("/predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
    });
    const told = await response.json();
    if (mine !== turn) return;
    if (!response.ok) return void refuse(told.error);
    showAnswer(at("targets"), told.answer, (name) => request[pieces.get(name)]);
    at("trip").textContent = say("trip", { ms: figure(performance.now() - started, 2) });
    show("answered");
  } catch {
    if (mine === turn) refuse({ column: null, message: say("offline"), expected: null });
  }
}

const isImage = (name) => images.some((column) => column.name === name);

function show(state) {
  answer.dataset.state = state;
  at("problem").hidden = state !== "refused";
}

function refuse(error) {
  const parts = [make("strong", "", say("error")), make("p", "", error.column ? `${error.column}: ${error.message}` : error.message)];
  if (error.expected && !error.message.startsWith("expected")) parts.push(make("p", "expected", say("expected", { what: error.expected })));
  if (error.id) parts.push(make("p", "expected", `id ${error.id}`));
  at("problem").replaceChildren(...parts);
  show("refused");
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  void send();
});
let pause = 0; // a row that was answered is answered again while it is edited
at("ask").addEventListener("input", (event) => {
  clearTimeout(pause);
  if (!about.writes && answer.dataset.state === "answered" && event.target.name) pause = setTimeout(() => void ask(false), 200);
});
at("example").addEventListener("click", () => {
  for (const column of rows) inputs.get(column.name).fill();
  void ask(true);
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && images.length) for (const column of images) inputs.get(column.name).clear();
});

const send = build();
startSpeaking();
document.documentElement.dataset.ready = "yes";
