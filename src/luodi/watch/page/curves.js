// The charts: which lines of which runs.
import { Chart } from "./chart.js";
import { place } from "./run.js";
import { say } from "./words.js";

const charts = new Map();
let chosen = null; // the metric that is shown

export const color = (run) => `var(--run${run.facts.number % 8})`;

// view: {runs, chosen, across, log, ordinal}; runs that have nothing yet draw nothing.
export function showCurves(parent, view) {
  const shown = view.runs.map((run) => ({ run, training: run.current_trainings()[view.ordinal] })).filter((one) => one.training);
  const alone = view.runs.length === 1;
  const axis = say(`across_${view.across}`);
  const at = (training, point) => place(training, point, view.across);
  const lines = (list, key) => shown.map(({ run, training }) => ({
    name: run.facts.name, color: color(run), unnamed: alone, points: training[list].map((one) => [at(training, one), one[key] ?? null]),
  }));

  put(parent, "loss", say("loss"), shown.flatMap(({ run, training }) => losses(run, training, at, alone)), { log: view.log, axis });
  metric(parent, shown, at, alone, axis);
  const rates = lines("ticks", "learning_rate");
  put(parent, "rate", say("learning_rate"), rates, { log: view.log, axis });
  put(parent, "speed", say("examples_a_second"), lines("ticks", "examples_a_second"), { axis, zero: true });
  const devices = lines("ticks", "device_mb").map((line) => ({ ...line, name: `${line.name} ${say("device")}`, dash: true, unnamed: false }));
  put(parent, "memory", say("memory"), [...lines("ticks", "memory_mb"), ...devices], { axis, zero: true });
  slopes(parent, shown.find(({ run }) => run === view.chosen), at, alone, axis);
}

function losses(run, training, at, alone) {
  const ticks = training.ticks.length > training.epochs.length ? training.ticks : [];
  const points = ticks.length ? ticks.map((one) => [at(training, one), one.loss ?? null]) : training.epochs.map((one) => [at(training, one), one.train_loss]);
  const checks = training.epochs.map((one) => [at(training, one), one.validation_loss]);
  const name = (key) => (alone ? say(key) : `${run.facts.name} · ${say(key)}`);
  return [
    { name: name("training"), color: alone ? "var(--soft)" : color(run), faint: true, points },
    { name: name("validation"), color: color(run), dots: true, dash: !alone, points: checks },
  ];
}

function metric(parent, shown, at, alone, axis) {
  const names = [...new Set(shown.flatMap(({ training }) => training.epochs.flatMap((one) => Object.keys(one.validation ?? {}))))];
  if (!names.includes(chosen)) chosen = names[0] ?? null;
  const lines = shown.map(({ run, training }) => ({
    name: run.facts.name, color: color(run), unnamed: alone, dots: true,
    points: training.epochs.map((one) => [at(training, one), one.validation?.[chosen] ?? null]),
  }));
  pick(put(parent, "metric", chosen ?? "", lines, { axis }), names, [parent, shown, at, alone, axis]);
}

// The metric's name is a choice in the chart's heading.
function pick(chart, names, again) {
  let select = chart.heading.querySelector("select");
  if (!select) {
    select = document.createElement("select");
    select.className = "metrics";
    select.addEventListener("change", () => {
      chosen = select.value;
      select.blur();
      metric(...chart.again);
    });
  }
  chart.again = again;
  if ([...select.options].map((one) => one.value).join("\n") !== names.join("\n")) {
    select.replaceChildren(...names.map((name) => new Option(name, name)));
  }
  if (chosen !== null) select.value = chosen;
  select.setAttribute("aria-label", say("validation"));
  const side = document.createElement("span");
  side.className = "of";
  side.textContent = ` ${say("validation")}`;
  chart.heading.replaceChildren(select, side);
}

// Of one run: a line a layer.
function slopes(parent, only, at, alone, axis) {
  const names = only ? [...new Set(only.training.layers.flatMap((one) => one.layers.filter((layer) => layer.gradients).map((layer) => layer.name)))] : [];
  const lines = names.map((name, number) => ({
    name, color: `var(--run${number % 8})`, dash: number >= 8,
    points: only.training.layers.map((one) => [at(only.training, one), one.layers.find((layer) => layer.name === name)?.gradients?.norm ?? null]),
  }));
  const title = alone || !only ? say("gradients") : `${say("gradients")} · ${only.run.facts.name}`;
  put(parent, "slopes", title, lines.slice(0, 16), { log: true, axis });
}

function put(parent, key, title, lines, options) {
  if (!charts.has(key)) {
    charts.set(key, new Chart(title));
    parent.append(charts.get(key).element);
  }
  const chart = charts.get(key);
  if (key === "metric") {
    const kept = [...chart.heading.childNodes];
    chart.show(title, lines, options);
    chart.heading.replaceChildren(...kept);
  } else chart.show(title, lines, options);
  return chart;
}
