// One run, folded from its events. Nothing here draws.

const MOST_LINES = 2000; // of the log

export class Run {
  constructor(facts) {
    this.facts = facts; // number, name, path
    this.evidence = {};
    this.forget();
  }

  // As if nothing had been read.
  forget() {
    this.stamp = "";
    this.at = 0;
    this.working = false;
    this.begun = null; // the newest start
    this.ended = false;
    this.steps = [];
    this.current = 0;
    this.trainings = new Map(); // key of a step -> training
    this.tick = null; // the newest progress of the current step
    this.lines = [];
    this.dropped = 0;
    this.clock = 0; // seconds at work, pauses between runs left out
    this.last = null;
  }

  get state() {
    if (this.begun === null) return "waiting";
    if (this.ended) return "finished";
    return this.working ? "running" : "stopped";
  }

  // What /events gave; true if anything is new.
  take(piece) {
    if (piece.start === 0 && (this.at > 0 || piece.stamp !== this.stamp)) this.forget();
    const changed = piece.events.length > 0 || this.working !== piece.working;
    this.stamp = piece.stamp;
    this.at = piece.end;
    this.working = piece.working;
    for (const event of piece.events) this.hear(event);
    return changed;
  }

  hear(event) {
    if (event.event !== "start" && this.last !== null) this.clock += Math.max(event.time - this.last, 0);
    this.last = event.time;
    const handle = HANDLES[event.event];
    if (handle) handle(this, event);
    if (event.event !== "progress") this.note(event);
  }

  note(event) {
    this.lines.push(event);
    if (this.lines.length > MOST_LINES) {
      this.lines.shift();
      this.dropped += 1;
    }
  }

  step(number) {
    return this.steps.find((one) => one.number === number);
  }

  // The training that an event belongs to.
  training(event) {
    const step = this.step(event.step);
    const key = step?.key ?? `${event.step}`;
    if (!this.trainings.has(key)) {
      const name = `${event.step ?? ""} ${event.name ?? ""}`.trim();
      this.trainings.set(key, { key, name, number: event.step, begun: this.clock, ticks: [], epochs: [], layers: [], total: 0, count: 0 });
    }
    return this.trainings.get(key);
  }

  // Trainings of the recipe as it is now, in order.
  current_trainings() {
    const keys = new Set(this.steps.map((step) => step.key));
    const all = [...this.trainings.values()];
    const now = all.filter((one) => keys.has(one.key));
    return (now.length ? now : all).sort((a, b) => a.number - b.number);
  }
}

const HANDLES = {
  start(run, event) {
    run.begun = event;
    run.ended = false;
    run.tick = null;
    run.current = 0;
    run.steps = event.steps.map((name, place) => ({ number: place + 1, name, state: "waiting", key: null }));
  },
  step(run, event) {
    run.tick = null;
    let step = run.step(event.step);
    if (!step) {
      step = { number: event.step, name: event.name };
      run.steps.unshift(step); // the bundle that a recipe starts from
    }
    for (const one of run.steps) if (one.number < event.step && one.state !== "kept") one.state = "done";
    Object.assign(step, { state: event.state === "kept" ? "kept" : "running", key: event.key });
    run.current = event.step;
  },
  progress(run, event) {
    run.tick = event;
    if (event.what !== "train") return;
    const training = run.training(event);
    cut(training.ticks, (one) => one.done < event.done);
    training.total = event.total ?? training.total;
    training.count = event.epochs ?? training.count;
    training.ticks.push({ ...event, at: run.clock - training.begun });
  },
  epoch(run, event) {
    const training = run.training(event);
    cut(training.epochs, (one) => one.epoch < event.epoch);
    training.epochs.push({ ...event, at: run.clock - training.begun });
  },
  layers(run, event) {
    const training = run.training(event);
    cut(training.layers, (one) => one.update < event.update);
    training.layers.push({ ...event, at: run.clock - training.begun });
  },
  saved(run, event) {
    const step = run.step(event.step);
    if (step) Object.assign(step, { state: "measuring", seconds: event.seconds });
  },
  measured(run, event) {
    const step = run.step(event.step);
    if (step) step.state = step.state === "kept" ? "kept" : "done";
  },
  stopped(run, event) {
    const step = run.step(run.current);
    if (step && step.state !== "done" && step.state !== "kept") Object.assign(step, { state: "stopped", why: event.text || event.error });
  },
  end(run) {
    run.ended = true;
    run.tick = null;
    for (const step of run.steps) if (step.state !== "kept") step.state = "done";
  },
};

// A training that went on from a checkpoint does some updates again: what came after it is forgotten.
function cut(list, stays) {
  while (list.length && !stays(list[list.length - 1])) list.pop();
}

// Where a point lies on the chosen axis.
export function place(training, point, across) {
  if (across === "minutes") return point.at / 60;
  const updates = training.count ? training.total / training.count : 1;
  const done = point.done ?? point.update ?? point.epoch * updates;
  return across === "update" ? done : done / updates;
}
