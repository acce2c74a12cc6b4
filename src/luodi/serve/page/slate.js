// What is drawn with a pen, a finger or a mouse: strokes in white on black, over a picture if there is one.
const BRUSH = 0.078; // of the slate's side: about the stroke of a pen-written digit
const SIDE = 560; // drawn at about twice its size on screen, so that it stays sharp

export class Slate {
  // `finished` is called when a stroke ends and after every other change.
  constructor(canvas, ratio, finished) {
    [canvas.width, canvas.height] = [SIDE, Math.round(SIDE * ratio)];
    this.canvas = canvas;
    this.pen = canvas.getContext("2d", { willReadFrequently: true });
    this.finished = finished;
    this.strokes = [];
    this.bitmap = null;
    this.pointer = null; // the finger that draws; another one is a palm
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#end(event));
    canvas.addEventListener("pointercancel", (event) => this.#end(event));
    this.paint();
  }

  get empty() {
    return !this.strokes.length && !this.bitmap;
  }

  show(bitmap) {
    [this.bitmap, this.strokes] = [bitmap, []];
    this.#change();
  }

  undo() {
    this.strokes.pop();
    this.#change();
  }

  wipe() {
    [this.bitmap, this.strokes] = [null, []];
    this.#change();
  }

  paint() {
    const { canvas, pen, bitmap } = this;
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    if (bitmap) {
      const scale = Math.min(canvas.width / bitmap.width, canvas.height / bitmap.height);
      const [across, down] = [bitmap.width * scale, bitmap.height * scale];
      pen.imageSmoothingEnabled = scale < 1;
      pen.drawImage(bitmap, (canvas.width - across) / 2, (canvas.height - down) / 2, across, down);
    }
    pen.strokeStyle = "#fff";
    pen.lineWidth = SIDE * BRUSH;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of this.strokes) this.#line(stroke);
  }

  // Through the middles of the points, so that a fast hand leaves curves and no corners.
  #line(points) {
    this.pen.beginPath();
    this.pen.moveTo(...points[0]);
    for (let index = 1; index < points.length - 1; index += 1) {
      const [[x, y], [nextX, nextY]] = [points[index], points[index + 1]];
      this.pen.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
    }
    this.pen.lineTo(...points.at(-1));
    this.pen.stroke();
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    const [across, down] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return [across * this.canvas.width, down * this.canvas.height];
  }

  #start(event) {
    if (event.button !== 0 || this.pointer !== null) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    if (this.bitmap) [this.bitmap, this.strokes] = [null, []];
    this.pointer = event.pointerId;
    this.strokes.push([this.#place(event)]);
    this.paint();
    this.canvas.dispatchEvent(new Event("drawing"));
  }

  #move(event) {
    if (event.pointerId !== this.pointer) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const one of moves.length ? moves : [event]) this.strokes.at(-1).push(this.#place(one));
    this.paint();
  }

  #end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.#change();
  }

  #change() {
    this.paint();
    this.finished();
  }
}
