// Pictures: from files, drops and the clipboard; from a big canvas to a small one.
import { make, say, whenSpoken } from "./words.js";

const FIT = 20 / 28; // share of the frame that a centred drawing fills: how handwritten digits are stored

// The drawing at width x height; `centre` brings what is drawn into the middle, by its centre of mass.
export function framed(canvas, width, height, centre) {
  const small = make("canvas");
  [small.width, small.height] = [width, height];
  const glass = small.getContext("2d");
  glass.fillStyle = "#000";
  glass.fillRect(0, 0, width, height);
  const ink = centre ? inkOf(canvas) : null;
  if (!ink) {
    shrink(canvas, [0, 0, canvas.width, canvas.height], glass, [0, 0, width, height]);
    return small;
  }
  const scale = Math.min((width * FIT) / ink.width, (height * FIT) / ink.height);
  const left = Math.min(Math.max(width / 2 - (ink.massX - ink.left) * scale, 0), width - ink.width * scale);
  const top = Math.min(Math.max(height / 2 - (ink.massY - ink.top) * scale, 0), height - ink.height * scale);
  shrink(canvas, [ink.left, ink.top, ink.width, ink.height], glass, [left, top, ink.width * scale, ink.height * scale]);
  return small;
}

// Halves until the last step is small: a browser's smoothing looks at few pixels only.
function shrink(source, from, glass, to) {
  let [image, box] = [source, from];
  while (box[2] > to[2] * 2 && box[3] > to[3] * 2) {
    const half = make("canvas");
    [half.width, half.height] = [Math.ceil(box[2] / 2), Math.ceil(box[3] / 2)];
    half.getContext("2d").drawImage(image, ...box, 0, 0, box[2] / 2, box[3] / 2);
    [image, box] = [half, [0, 0, box[2] / 2, box[3] / 2]];
  }
  glass.drawImage(image, ...box, ...to);
}

function inkOf(canvas) {
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let [left, top, right, bottom, mass, sumX, sumY] = [width, height, -1, -1, 0, 0, 0];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const light = data[(y * width + x) * 4];
      if (light < 16) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
      mass += light;
      sumX += light * x;
      sumY += light * y;
    }
  }
  if (right < 0) return null;
  return { left, top, width: right - left + 1, height: bottom - top + 1, massX: sumX / mass, massY: sumY / mass };
}

export function asPng(canvas) {
  return canvas.toDataURL("image/png").split(",")[1];
}

export async function fileToBase64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768) {
    text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  }
  return btoa(text);
}

// Files chosen, dropped on `place`, or pasted; one that the browser cannot show is sent too, so that the server says why not.
export function acceptFiles(place, picker, accept) {
  async function take(file) {
    if (!file) return;
    const bitmap = await createImageBitmap(file).catch(() => blank());
    await accept(file, bitmap);
  }
  picker.addEventListener("change", async () => {
    await take(picker.files[0]);
    picker.value = "";
  });
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    place.classList.add("over");
  });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (file) take(file);
  });
}

function blank() {
  const canvas = make("canvas");
  [canvas.width, canvas.height] = [2, 2];
  return canvas;
}

// A place for a picture in colour: dropped, pasted or chosen, shown as it is, sent as it is.
export function picture(column, changed) {
  const picker = make("input");
  picker.type = "file";
  picker.accept = "image/*";
  const shown = make("canvas", "shown");
  const hint = make("span", "hint");
  const slate = make("label", "slate paper", [shown, hint, picker]);
  const [, height, width] = column.shape;
  slate.style.aspectRatio = `${width} / ${height}`;
  whenSpoken(() => (hint.textContent = say("drop_here")));
  let base64 = null;
  acceptFiles(slate, picker, async (file, bitmap) => {
    base64 = await fileToBase64(file);
    [shown.width, shown.height] = [bitmap.width, bitmap.height];
    shown.getContext("2d").drawImage(bitmap, 0, 0);
    hint.hidden = true;
    changed();
  });
  return { element: slate, value: () => base64, clear: () => (base64 = null) };
}
