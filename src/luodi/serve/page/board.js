// A black board to draw on with a pen, a finger or a mouse, or to drop a picture on.
import { make, say, whenSpoken } from "./words.js";
import { acceptFiles, asPng, fileToBase64, framed } from "./picture.js";

const BRUSH = 0.078; // of the board's side: about the stroke of a pen-written digit
const SIDE = 560; // drawn at twice the usual size on screen, so that it stays sharp

export function board(column, changed) {
  const [, height, width] = column.shape;
  const ratio = height / width;
  const canvas = make("canvas", "board");
  canvas.width = SIDE;
  canvas.height = Math.round(SIDE * ratio);
  canvas.setAttribute("role", "img");
  const hint = make("span", "hint");
  const slate = make("div", "slate", [canvas, hint]);
  slate.style.aspectRatio = `${width} / ${height}`;
  const undo = make("button");
  const clear = make("button");
  const centre = make("input");
  const centreWords = make("span");
  const seen = make("canvas", "seen");
  const seenWords = make("span", "seen-words");
  const picker = make("input");
  const upload = make("label", "button");
  const uploadWords = make("span");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let strokes = [];
  let picture = null; // {bitmap, base64}: an uploaded file is sent as it is
  for (const button of [undo, clear]) button.type = "button";
  undo.id = `undo-${column.name}`;
  clear.id = `clear-${column.name}`;
  centre.type = "checkbox";
  centre.checked = true;
  picker.type = "file";
  picker.accept = "image/*";
  upload.append(picker, uploadWords);
  [seen.width, seen.height] = [width, height];
  whenSpoken(() => {
    hint.textContent = say("draw_here");
    canvas.setAttribute("aria-label", say("draw_here"));
    undo.textContent = say("undo");
    clear.textContent = say("clear");
    uploadWords.textContent = say("upload");
    centreWords.textContent = say("centre");
    tell();
  });

  function tell() {
    seenWords.textContent = say(picture ? "seen_file" : "seen", { size: `${width} × ${height}` });
    centre.parentElement?.toggleAttribute("hidden", picture !== null);
  }


  function paint() {
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    if (picture) {
      const scale = Math.min(canvas.width / picture.bitmap.width, canvas.height / picture.bitmap.height);
      const [across, down] = [picture.bitmap.width * scale, picture.bitmap.height * scale];
      pen.imageSmoothingEnabled = scale < 1;
      pen.drawImage(picture.bitmap, (canvas.width - across) / 2, (canvas.height - down) / 2, across, down);
    }
    pen.strokeStyle = pen.fillStyle = "#fff";
    pen.lineWidth = SIDE * BRUSH;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of strokes) line(stroke);
    const empty = !strokes.length && !picture;
    hint.hidden = !empty;
    undo.disabled = !strokes.length;
    clear.disabled = empty;
    slate.parentElement?.classList.toggle("is-empty", empty);
  }

  // Through the middles of the points, so that a fast hand leaves curves and no corners.
  function line(points) {
    pen.beginPath();
    pen.moveTo(...points[0]);
    for (let index = 1; index < points.length - 1; index += 1) {
      const [[x, y], [nextX, nextY]] = [points[index], points[index + 1]];
      pen.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    pen.lineTo(...points.at(-1));
    pen.stroke();
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  }

  let drawing = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || drawing !== null) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    if (picture) [picture, strokes] = [null, []];
    drawing = event.pointerId;
    strokes.push([place(event)]);
    paint();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== drawing) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    strokes.at(-1).push(...(moves.length ? moves : [event]).map(place));
    paint();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId !== drawing) return;
      drawing = null;
      finish();
    });
  }

  // The picture at the column's own size: what the person sees in small is what is sent.
  function finish() {
    paint();
    const ink = !strokes.length && !picture ? null : framed(canvas, width, height, centre.checked && !picture);
    const glass = seen.getContext("2d");
    glass.clearRect(0, 0, width, height);
    if (ink) glass.drawImage(ink, 0, 0);
    tell();
    changed();
  }

  function wipe() {
    [strokes, picture] = [[], null];
    finish();
  }

  undo.addEventListener("click", () => {
    strokes.pop();
    finish();
  });
  clear.addEventListener("click", wipe);
  centre.addEventListener("change", finish);
  acceptFiles(slate, picker, async (file, bitmap) => {
    picture = { bitmap, base64: await fileToBase64(file) };
    strokes = [];
    finish();
  });
  const tools = make("div", "buttons", [clear, undo, upload]);
  const view = make("div", "seen-row", [seen, make("div", "seen-side", [seenWords, make("label", "check", [centre, centreWords])])]);
  const element = make("div", "drawing", [slate, tools, view]);
  paint();
  return {
    element,
    // null: nothing is drawn yet
    value: () => (picture ? picture.base64 : strokes.length ? asPng(seen) : null),
    clear: wipe,
  };
}
