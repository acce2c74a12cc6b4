// POST /predict, answered piece by piece: calls `took` with each event; throws what the server says, or that it ends.
export async function streamed(request, signal, took) {
  const response = await fetch("/predict", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(request),
    signal,
  });
  if (!response.ok) throw new Told((await response.json()).error);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (held + value).split("\n\n");
    held = events.pop();
    for (const event of events) {
      const told = JSON.parse(event.replace(/^data: /, ""));
      if (told.error) throw new Told(told.error);
      took(told);
    }
  }
}

export class Told extends Error {
  constructor(error) {
    super(error.message);
    this.told = error;
  }
}
