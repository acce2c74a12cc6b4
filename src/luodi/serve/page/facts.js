// What was measured of the bundle, and how to call it from code.
import { figure, make, say, share } from "./words.js";

const SHARES = /accuracy|f1|precision|recall|auc/;

export function showFacts(place, about) {
  const measures = new Map(about.measures.map((one) => [one.name, one]));
  const main = Object.keys(about.metrics).find((name) => measures.has(name));
  const cells = [];
  if (main) cells.push(quality(main, measures.get(main)));
  if (measures.has("p50_ms")) cells.push(latency(measures.get("p50_ms")));
  if (measures.has("size_mb")) cells.push(size(say("size"), measures.get("size_mb")));
  if (measures.has("memory_mb")) cells.push(size(say("memory"), measures.get("memory_mb")));
  cells.push(fact(say("form"), about.form, `luodi ${about.luodi}`));
  if (about.digest) cells.push(digest(about.digest));
  place.replaceChildren(...cells);
  if (about.rehearsal) place.append(make("p", "rehearsal", say("rehearsal")));
}

function fact(name, value, ...more) {
  const lines = more.map((line) => make("span", "fact-more", line));
  return make("div", "fact", [make("span", "fact-name", name), make("span", "fact-value", value), ...lines]);
}

function quality(name, measure) {
  const write = SHARES.test(name) ? share : (value) => figure(value, 4);
  const short = name.includes(".") ? name.slice(name.indexOf(".") + 1) : name;
  const range = `${write(measure.low)} – ${write(measure.high)}`;
  return fact(short === "accuracy" ? say(short) : short, write(measure.value), range, say("count_rows", { count: figure(measure.count, 6) }));
}

function latency(measure) {
  const range = `${figure(measure.low)} – ${figure(measure.high)} ms`;
  const calls = say("count_calls", { count: figure(measure.count, 6) });
  return fact(say("p50"), `${figure(measure.value)} ms`, range, calls);
}

function size(name, measure) {
  const small = measure.value < 1;
  return fact(name, small ? `${figure(measure.value * 1000)} kB` : `${figure(measure.value)} MB`);
}

function digest(whole) {
  const cell = fact(say("bundle"), whole.slice(0, 10), "SHA-256");
  cell.classList.add("digest");
  cell.title = whole;
  return cell;
}

export function snippet(about) {
  const where = `${location.origin}/predict`;
  const needed = about.writes ? about.inputs.filter((one) => one.name === about.writes.column) : about.inputs;
  const example = Object.fromEntries(needed.map((one) => [one.name, (one.schema.examples ?? one.schema.enum ?? [null])[0]]));
  const json = JSON.stringify(example).replaceAll("'", "'\\''");
  const lines = [];
  if (about.inputs.length === 1 && about.inputs[0].kind === "image") {
    lines.push(`curl ${where} -F file=@picture.png`, "");
  }
  lines.push(`curl ${where} -H 'Content-Type: application/json' -d '${json}'`);
  if (about.writes && about.writes.answer === about.writes.column) lines.push("", ...openai(about));
  return lines.join("\n");
}

function openai(about) {
  const asked = about.writes.messages ? 'messages=[{"role": "user", "content": "你好"}]' : 'prompt="你好"';
  const path = about.writes.messages ? "chat.completions" : "completions";
  return [
    "from openai import OpenAI",
    `client = OpenAI(base_url="${location.origin}/v1", api_key="none")`,
    `client.${path}.create(model=${JSON.stringify(about.name)}, ${asked})`,
  ];
}
