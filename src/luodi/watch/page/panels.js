// The runs at the top, and below the charts the steps, the layers and the log of one of them.
import { color } from "./curves.js";
import { clock, figure, make, say, share } from "./words.js";

// ---- runs

export function showRuns(place, runs, chosen, choose) {
  place.replaceChildren(...runs.map((run) => runCard(run, run === chosen, choose)));
}

function runCard(run, chosen, choose) {
  const state = run.state;
  const dot = make("span", "dot");
  dot.style.setProperty("--colour", color(run));
  const card = make("button", `run ${state}`, [make("span", "run-name", [dot, make("b", "", run.facts.name)]), make("span", `state ${state}`, say(`state_${state}`))]);
  card.type = "button";
  card.setAttribute("aria-pressed", String(chosen));
  card.title = run.facts.path;
  card.addEventListener("click", () => choose(run));
  const step = run.step(run.current);
  if (step && !run.ended) {
    const where = say("step_of", { number: step.number, count: run.begun.steps.length });
    card.append(make("span", "run-step", `${where} · ${step.name}${step.state === "measuring" ? ` · ${say("measuring")}` : ""}`));
  }
  card.append(...now(run));
  const ends = run.ended ? run.evidence[run.steps[run.steps.length - 1]?.key] : undefined;
  if (ends) card.append(make("span", "measures last", measures(ends, false)));
  if (step?.why) card.append(make("span", "why", step.why));
  return card;
}

// How far the step is, and its newest figures.
function now(run) {
  const tick = run.tick;
  if (!tick || !tick.total) return [];
  const bar = make("span", "bar", make("span", "fill"));
  bar.firstChild.style.width = `${(100 * tick.done) / tick.total}%`;
  const parts = [];
  if (tick.epochs) parts.push(say("epoch_of", { epoch: tick.epoch, epochs: tick.epochs }));
  else parts.push(`${tick.what ?? ""} ${tick.done}/${tick.total}`);
  if (tick.remaining_seconds !== undefined && run.working) {
    parts.push(say(tick.remaining_is_least ? "left_least" : "left", { time: clock(tick.remaining_seconds) }));
  }
  const figures = [["loss", tick.loss], ["rate_now", tick.learning_rate], ["speed_now", tick.examples_a_second], ["memory", tick.memory_mb]];
  const cells = figures.filter(([, value]) => value !== undefined && value !== null).map(([key, value]) => make("span", "cell", [make("small", "", say(key)), make("b", "", figure(value))]));
  return [bar, make("span", "run-about", parts.join(" · ")), make("span", "cells", cells)];
}

// ---- steps

const SIGNS = { better: "▲", worse: "▼", same: "=", undecided: "?" };

export function showSteps(place, run) {
  place.replaceChildren(...run.steps.map((step) => stepRow(step, run)));
}

function stepRow(step, run) {
  const state = step.state === "running" && !run.working ? "stopped" : step.state;
  const evidence = step.key ? run.evidence[step.key] : undefined;
  const took = step.seconds ?? evidence?.seconds;
  const head = [make("b", "", `${step.number} ${step.name}`), make("span", `state ${state}`, stateWords(state))];
  if (took) head.push(make("span", "took", say("seconds", { seconds: figure(took) })));
  const body = [make("div", "step-head", head)];
  if (evidence) {
    body.push(make("div", "measures", measures(evidence)));
    if (evidence.words.length) body.push(make("p", "words", evidence.words.join(" · ")));
  }
  if (step.why) body.push(make("p", "why", step.why));
  return make("li", `step ${state}`, body);
}

function stateWords(state) {
  if (state === "kept") return say("kept");
  if (state === "measuring") return say("measuring");
  if (state === "waiting") return say("waiting");
  return say(`state_${state === "done" ? "finished" : state}`);
}

const MEASURES = { p50_ms: "measure_p50", size_mb: "measure_size", memory_mb: "memory" };
const SHOWN = Object.keys(MEASURES);
const SHARES = /accuracy|f1|precision|recall|auc/;

function measures(evidence, signed = true) {
  const names = Object.keys(evidence.measures);
  const main = names.find((name) => name.includes("."));
  return [...(main ? [main] : []), ...SHOWN.filter((name) => names.includes(name))].map((name) => {
    const one = evidence.measures[name];
    const write = SHARES.test(name) ? (value) => share3(value) : (value) => figure(value);
    const range = one.low !== one.high ? ` [${write(one.low)}, ${write(one.high)}]` : "";
    const sign = one.verdict && signed ? make("span", `sign ${one.verdict}`, ` ${SIGNS[one.verdict]}`) : "";
    return make("span", "measure", [make("small", "", name in MEASURES ? say(MEASURES[name]) : name.slice(name.indexOf(".") + 1)), make("span", "", [make("b", "", write(one.value)), make("span", "range", range), sign])]);
  });
}

const share3 = (value) => value.toFixed(3);

// ---- layers

export function showLayers(place, run, ordinal) {
  const training = run.current_trainings()[ordinal];
  const look = training?.layers[training.layers.length - 1];
  if (!look) return void place.replaceChildren(make("p", "empty", say("layers_none")));
  const flags = look.flags.map((flag) => make("li", "flag", [make("b", "", flag.layer), " ", flagWords(flag)]));
  const told = flags.length ? make("ul", "flags", flags) : make("p", "fine", say("layers_fine"));
  const flagged = new Set(look.flags.map((flag) => flag.layer));
  const heads = [say("layer"), say("gradient"), "", say("weights"), say("update_ratio"), say("activations"), say("zeros"), say("dead")];
  const table = make("table", "", [
    make("thead", "", make("tr", "", heads.map((text) => make("th", "", text)))),
    make("tbody", "", look.layers.map((layer) => layerRow(layer, training, flagged.has(layer.name)))),
  ]);
  const at = make("p", "of", say("at_update", { update: look.update, epoch: look.epoch }));
  place.replaceChildren(told, make("div", "scroll", table), at);
}

function layerRow(layer, training, flagged) {
  const cell = (text, name = "") => make("td", name, text);
  const name = make("th", "", [layer.name, make("small", "", ` ${layer.kind}`)]);
  const past = training.layers.map((look) => look.layers.find((one) => one.name === layer.name)?.gradients?.norm);
  const row = make("tr", flagged ? "flagged" : "", [
    name, cell(norm(layer.gradients)), cell(layer.gradients ? spark(past) : ""), cell(spread(layer.weights)),
    cell(layer.update === undefined ? "" : figure(layer.update, 2)), cell(spread(layer.activations)),
    cell(layer.activations ? share(layer.activations.zeros) : ""), cell(layer.activations?.dead === undefined ? "" : share(layer.activations.dead)),
  ]);
  name.scope = "row";
  return row;
}

const norm = (part) => (part ? figure(part.norm, 2) : "");
const spread = (part) => (part ? `${figure(part.mean, 2)} ± ${figure(part.deviation, 2)}` : "");

// The logarithm of positive numbers as a small line.
function spark(values) {
  const logs = values.map((value) => (value > 0 ? Math.log10(value) : null)).filter((value) => value !== null);
  if (logs.length < 2) return "";
  const [low, high] = [Math.min(...logs), Math.max(...logs)];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 64 18");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const points = logs.map((value, place) => `${2 + (60 * place) / (logs.length - 1)} ${high === low ? 9 : 16 - (14 * (value - low)) / (high - low)}`);
  path.setAttribute("d", `M${points.join("L")}`);
  svg.append(path);
  return svg;
}

function flagWords(flag) {
  const small = (value) => figure(value, 2);
  const known = { vanish: [small, small], explode: [small, small], dead: [share, share], "large update": [share, share], "not finite": [String, String] };
  const key = `flag_${flag.what.replace(" ", "_")}`;
  if (!(flag.what in known)) return flag.text;
  const [write, limit] = known[flag.what];
  return flag.value === null ? say(key) : say(key, { ratio: write(flag.value), share: write(flag.value), limit: limit(flag.threshold) });
}

// ---- log

export function showLog(place, run) {
  const low = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
  const lines = run.lines.slice(-300);
  const hidden = run.dropped + run.lines.length - lines.length;
  const rows = lines.map((event) => make("li", `line ${event.event}`, [make("time", "", time(event.time)), make("span", "", lineWords(event))]));
  if (hidden) rows.unshift(make("li", "line of", say("more_rows", { count: hidden })));
  place.replaceChildren(...rows);
  if (low) place.scrollTop = place.scrollHeight;
}

function time(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

function lineWords(event) {
  switch (event.event) {
    case "start":
      return say("log_start", event);
    case "step":
      return `${event.step} ${event.name}${event.state === "kept" ? ` · ${say("kept")}` : ""}`;
    case "epoch":
      return epochWords(event);
    case "layers":
      return say("log_layers", { count: event.flags.length });
    case "saved":
      return say("log_saved", { seconds: figure(event.seconds) });
    case "measured":
      return say("log_measured", { seconds: figure(event.seconds) });
    case "stopped":
      return `${say("state_stopped")} · ${event.text || event.error}`;
    case "end":
      return say("state_finished");
    default:
      return String(event.text ?? event.event);
  }
}

function epochWords(event) {
  const parts = [say("log_epoch", { epoch: event.epoch, loss: figure(event.train_loss, 4) })];
  if (event.validation_loss !== null) parts.push(`${say("validation")} ${figure(event.validation_loss, 4)}`);
  const first = Object.entries(event.validation ?? {})[0];
  if (first) parts.push(`${first[0]} ${figure(first[1], 4)}`);
  return parts.join(", ");
}
