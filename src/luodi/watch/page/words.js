// The page's words in two languages. say(key, facts) fills {name} with facts.name.
const WORDS = {
  en: {
    activations: "Activations",
    across: "Over",
    across_epoch: "epochs",
    across_minutes: "minutes",
    across_update: "updates",
    at_update: "update {update}, epoch {epoch}",
    dead: "dead",
    device: "device",
    epoch_of: "epoch {epoch} of {epochs}",
    examples_a_second: "Examples a second",
    flag_dead: "{share} of its units are dead: zero for every row of a batch (over {limit})",
    flag_explode: "its gradients explode: {ratio} times those of the head (over {limit})",
    flag_large_update: "one update moves it by {share} of its weights (over {limit})",
    flag_not_finite: "its gradients are not finite numbers",
    flag_vanish: "its gradients vanish: {ratio} times those of the head (under {limit})",

    gradient: "gradient",
    gradients: "Gradient norm, layer by layer",
    kept: "kept from an earlier run",
    layer: "layer",
    layers: "Layers",
    layers_none: "Not looked at. train: {listeners: [layers]} shows weights, gradients and activations of each layer.",
    layers_fine: "No layer vanishes, explodes or is dead.",
    learning_rate: "Learning rate",
    left: "{time} left",
    left_least: "over {time} left",
    log: "Log",
    log_epoch: "epoch {epoch}: loss {loss}",
    log_layers: "layers looked at: {count} findings",
    log_measured: "measured in {seconds} s",
    log_saved: "done in {seconds} s, now measured",
    log_scale: "log scale",
    log_start: "started: {recipe} on {device}, {threads} threads",
    loss: "Loss",
    measuring: "is measured",
    measure_p50: "Latency p50 (ms)",
    measure_size: "Size on disk (MB)",
    memory: "Memory (MB)",
    more_rows: "{count} earlier lines",
    offline: "The watcher does not answer. Is it still running?",
    rate_now: "rate",
    seconds: "{seconds} s",
    speed_now: "examples/s",
    state_finished: "finished",
    state_running: "running",
    state_stopped: "stopped",
    state_waiting: "waiting for its start",
    step_of: "step {number} of {count}",
    steps: "Steps",
    training: "training",
    trainings: "Training",
    update: "update",
    update_ratio: "update / weights",
    validation: "validation",
    waiting: "waiting",
    weights: "weights",
    zeros: "zeros",
  },
  zh: {
    activations: "激活",
    across: "横轴",
    across_epoch: "轮次",
    across_minutes: "分钟",
    across_update: "更新次数",
    at_update: "第 {update} 次更新，第 {epoch} 轮",
    dead: "死亡",
    device: "设备",
    epoch_of: "第 {epoch} 轮，共 {epochs} 轮",
    examples_a_second: "每秒样本数",
    flag_dead: "{share} 的单元已死：对一批中的每一行都为零（超过 {limit}）",
    flag_explode: "梯度爆炸：是输出层的 {ratio} 倍（超过 {limit}）",
    flag_large_update: "一次更新改变了权重的 {share}（超过 {limit}）",
    flag_not_finite: "梯度不是有限的数",
    flag_vanish: "梯度消失：是输出层的 {ratio} 倍（低于 {limit}）",

    gradient: "梯度",
    gradients: "各层梯度范数",
    kept: "沿用之前的运行",
    layer: "层",
    layers: "各层",
    layers_none: "没有查看。写上 train: {listeners: [layers]} 即可看到每层的权重、梯度与激活。",
    layers_fine: "没有哪一层消失、爆炸或死亡。",
    learning_rate: "学习率",
    left: "还剩 {time}",
    left_least: "至少还剩 {time}",
    log: "日志",
    log_epoch: "第 {epoch} 轮：损失 {loss}",
    log_layers: "已查看各层：{count} 个发现",
    log_measured: "测量用时 {seconds} 秒",
    log_saved: "用时 {seconds} 秒，正在测量",
    log_scale: "对数刻度",
    log_start: "开始：{recipe}，设备 {device}，{threads} 个线程",
    loss: "损失",
    measuring: "正在测量",
    measure_p50: "延迟 p50 (毫秒)",
    measure_size: "磁盘大小 (MB)",
    memory: "内存 (MB)",
    more_rows: "更早的 {count} 行",
    offline: "监视服务没有回应，它还在运行吗？",
    rate_now: "学习率",
    seconds: "{seconds} 秒",
    speed_now: "样本/秒",
    state_finished: "已完成",
    state_running: "运行中",
    state_stopped: "已停止",
    state_waiting: "等待开始",
    step_of: "第 {number} 步，共 {count} 步",
    steps: "步骤",
    training: "训练",
    trainings: "训练步骤",
    update: "更新",
    update_ratio: "更新 / 权重",
    validation: "验证",
    waiting: "等待",
    weights: "权重",
    zeros: "零",
  },
};

const listeners = [];
let language = chosen();

function chosen() {
  const kept = localStorage.getItem("language");
  if (kept in WORDS) return kept;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export function say(key, facts = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (whole, name) => (name in facts ? facts[name] : whole));
}

// Calls `draw` now and whenever the language changes.
export function whenSpoken(draw) {
  listeners.push(draw);
  draw();
}

function speak(next) {
  language = next;
  document.documentElement.lang = next === "zh" ? "zh-CN" : "en";
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === next));
  }
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  for (const draw of listeners) draw();
}

export function startSpeaking() {
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => {
      localStorage.setItem("language", button.dataset.language);
      speak(button.dataset.language);
    });
  }
  speak(language);
}

// A number with so many significant digits; very small and very large ones with an exponent.
export function figure(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e7)) return value.toExponential(Math.max(digits - 2, 0)).replace("e+", "e");
  return new Intl.NumberFormat("en", { maximumSignificantDigits: Math.max(digits, Math.ceil(Math.log10(size + 1))) }).format(value);
}

export function share(value) {
  return new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: value < 0.0995 ? 1 : 0 }).format(value);
}

export function clock(seconds) {
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, place) => (place ? String(part).padStart(2, "0") : String(part))).join(":");
}

// An element with a class, its text or children.
export function make(tag, name = "", content = []) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...(Array.isArray(content) ? content : [content]));
  return element;
}
