// The page's words in two languages. say(key, facts) fills {name} with facts.name.
const WORDS = {
  en: {
    accuracy: "Accuracy",
    anew: "New chat",
    answer: "Answer",
    ask_chat: "Say something",
    ask_draw: "Draw or drop a picture",
    ask_mixed: "Fill in a request",
    ask_picture: "Choose a picture",
    ask_prompt: "Begin a text",
    ask_row: "Fill in a row",
    ask_text: "Write a text",
    bundle: "Bundle",
    centre: "Centre my drawing",
    chat: "Chat",
    choose: "Choose a file",
    clear: "Clear",
    copied: "copied",
    count_calls: "{count} calls",
    count_rows: "{count} held-out rows",
    draw_here: "Draw here",
    drop_here: "Drop a picture here, paste one, or choose a file",
    empty: "Nothing yet. The answer appears as soon as you lift the pen.",
    empty_chat: "Nothing yet. What you say and what is answered stands here.",
    empty_picture: "Nothing yet. The answer appears as soon as there is a picture.",
    empty_prompt: "Nothing yet. The text goes on here as it is written.",
    empty_row: "Nothing yet. Fill in the row, or take the example.",
    empty_text: "Nothing yet. Write a text, or take the example.",
    empty_written: "Nothing yet. What is written from your text stands here.",
    error: "This could not be answered",
    example: "Example",
    expected: "Expected: {what}",
    form: "Form",
    from_code: "Use it from code",
    memory: "Memory",
    missing: "a value is missing",
    offline: "The server does not answer. Is it still running?",
    p50: "Latency p50",
    predict: "Predict",
    rehearsal: "Rehearsed on a few rows: these figures mean nothing.",
    sampling: "Sampling",
    seen: "What is sent: {size}",
    seen_file: "Sent as it is; the bundle makes it {size}",
    send: "Send",
    size: "Size on disk",
    stop: "Stop",
    trip: "Answered in {ms} ms, there and back",
    trip_text: "{read} tokens read, {tokens} written, {rate} a second",
    undo: "Undo",
    upload: "Upload",
    write: "Write",
    write_here: "Write here",
    write_on: "Write on",
  },
  zh: {
    accuracy: "准确率",
    anew: "新对话",
    answer: "答案",
    ask_chat: "说点什么",
    ask_draw: "画一个，或拖入图片",
    ask_mixed: "填写一个请求",
    ask_picture: "选择一张图片",
    ask_prompt: "写一个开头",
    ask_row: "填写一行数据",
    ask_text: "写一段文字",
    bundle: "模型包",
    centre: "自动居中",
    chat: "对话",
    choose: "选择文件",
    clear: "清除",
    copied: "已复制",
    count_calls: "{count} 次调用",
    count_rows: "{count} 行留出数据",
    draw_here: "在这里画",
    drop_here: "把图片拖到这里、粘贴，或选择文件",
    empty: "还没有答案。抬笔之后立刻就有。",
    empty_chat: "还没有对话。你说的和得到的回答都会显示在这里。",
    empty_picture: "还没有答案。放入图片后立刻就有。",
    empty_prompt: "还没有内容。续写会在这里逐字出现。",
    empty_row: "还没有答案。请填写各列，或使用示例。",
    empty_text: "还没有答案。请写一段文字，或使用示例。",
    empty_written: "还没有内容。根据你的文字写出的结果会显示在这里。",
    error: "无法回答",
    example: "示例",
    expected: "应为：{what}",
    form: "形式",
    from_code: "在代码中使用",
    memory: "内存",
    missing: "缺少一个值",
    offline: "服务器没有回应，它还在运行吗？",
    p50: "延迟 p50",
    predict: "预测",
    rehearsal: "这只是用少量数据的彩排，数字没有意义。",
    sampling: "采样",
    seen: "实际发送：{size}",
    seen_file: "原样发送；模型包会转成 {size}",
    send: "发送",
    size: "磁盘大小",
    stop: "停止",
    trip: "往返共 {ms} 毫秒",
    trip_text: "读入 {read} 个词元，写出 {tokens} 个，每秒 {rate} 个",
    undo: "撤销",
    upload: "上传",
    write: "写出",
    write_here: "在这里写",
    write_on: "续写",
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
  return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => facts[name]);
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

// A number as people of this language write it, with so many significant digits.
export function figure(value, digits = 3) {
  return new Intl.NumberFormat(language === "zh" ? "zh-CN" : "en", { maximumSignificantDigits: digits }).format(value);
}

export function share(value) {
  if (value > 0 && value < 0.0005) return "<0.1%";
  const digits = value > 0.9995 && value < 1 ? 2 : 1;
  return new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: digits }).format(value);
}

// An element with a class, its text or children.
export function make(tag, name = "", content = []) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...(Array.isArray(content) ? content : [content]));
  return element;
}
