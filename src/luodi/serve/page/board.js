// A black board for an image column of one channel: draw on it, or give it a picture.
import { acceptFiles, asPng, fileToBase64, framed } from "./picture.js";
import { Slate } from "./slate.js";
import { make, say, whenSpoken } from "./words.js";

export function board(column, changed) {
  const [, height, width] = column.shape;
  const parts = build(column.name, width, height);
  let file = null; // the base64 of an uploaded file, which is sent as it is
  const slate = new Slate(parts.canvas, height / width, finish);

  // The picture at the column's own size: what the person sees in small is what is sent.
  function finish() {
    if (!slate.bitmap) file = null;
    const glass = parts.seen.getContext("2d");
    glass.clearRect(0, 0, width, height);
    if (!slate.empty) glass.drawImage(framed(parts.canvas, width, height, parts.centre.checked && !file), 0, 0);
    tell();
    changed();
  }

  function tell() {
    parts.hint.hidden = !slate.empty;
    parts.undo.disabled = !slate.strokes.length;
    parts.clear.disabled = slate.empty;
    parts.centreLabel.hidden = file !== null;
    parts.seenWords.textContent = say(file ? "seen_file" : "seen", { size: `${width} × ${height}` });
  }

  parts.canvas.addEventListener("drawing", () => (parts.hint.hidden = true));
  parts.undo.addEventListener("click", () => slate.undo());
  parts.clear.addEventListener("click", () => slate.wipe());
  parts.centre.addEventListener("change", finish);
  acceptFiles(parts.frame, parts.picker, async (given, bitmap) => {
    file = await fileToBase64(given);
    slate.show(bitmap);
  });
  whenSpoken(() => {
    parts.speak();
    tell();
  });
  return {
    element: parts.element,
    // null: nothing is drawn yet
    value: () => (slate.empty ? null : (file ?? asPng(parts.seen))),
    clear: () => slate.wipe(),
  };
}

function build(name, width, height) {
  const canvas = make("canvas", "board");
  canvas.setAttribute("role", "img");
  const hint = make("span", "hint");
  const frame = make("div", "slate", [canvas, hint]);
  frame.style.aspectRatio = `${width} / ${height}`;
  const [clear, undo] = [button(`clear-${name}`), button(`undo-${name}`)];
  const picker = make("input");
  [picker.type, picker.accept] = ["file", "image/*"];
  const uploadWords = make("span");
  const upload = make("label", "button", [picker, uploadWords]);
  const centre = make("input");
  [centre.type, centre.checked] = ["checkbox", true];
  const centreWords = make("span");
  const centreLabel = make("label", "check", [centre, centreWords]);
  const seen = make("canvas", "seen");
  [seen.width, seen.height] = [width, height];
  const seenWords = make("span", "seen-words");
  const tools = make("div", "buttons", [clear, undo, upload]);
  const view = make("div", "seen-row", [seen, make("div", "seen-side", [seenWords, centreLabel])]);
  const element = make("div", "drawing", [frame, tools, view]);
  function speak() {
    hint.textContent = say("draw_here");
    canvas.setAttribute("aria-label", say("draw_here"));
    undo.textContent = say("undo");
    clear.textContent = say("clear");
    uploadWords.textContent = say("upload");
    centreWords.textContent = say("centre");
  }
  return { canvas, hint, frame, clear, undo, picker, centre, centreLabel, seen, seenWords, element, speak };
}

function button(id) {
  const one = make("button");
  [one.type, one.id] = ["button", id];
  return one;
}
