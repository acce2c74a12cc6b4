// A text that goes on, one written from another, or a dialogue of many turns; the text appears as it is written.
import { sampling } from "./sampling.js";
import { streamed } from "./stream.js";
import { text } from "./text.js";
import { figure, make, say, whenSpoken } from "./words.js";

const at = (id) => document.getElementById(id);

export function talk(about, show, refuse) {
  const { column, answer, messages: chat } = about.writes;
  const anew = column !== answer; // nothing goes on: a text is written from another
  const known = about.inputs.filter((one) => ![column, answer, "messages"].includes(one.name));
  const prompt = text(about.inputs.find((one) => one.name === column));
  const rules = sampling(known);
  const paper = make("div", chat ? "turns" : "written");
  const [stop, again] = [button("stop"), button("anew")];
  let turns = [];
  let writing = null; // the AbortController of what is being written

  at("inputs").append(prompt.element, rules.element);
  at("targets").append(paper);
  at("send-row").append(stop, ...(chat ? [again] : []));
  at("send-row").hidden = false;
  at("example").hidden = true;
  stop.disabled = true;
  document.querySelector("main").classList.toggle("chat", chat);
  whenSpoken(() => {
    at("ask-title").textContent = say(chat ? "ask_chat" : anew ? "ask_text" : "ask_prompt");
    if (chat) at("answer").querySelector("h2").textContent = say("chat");
    at("send").textContent = say(chat ? "send" : anew ? "write" : "write_on");
    at("waiting").textContent = say(chat ? "empty_chat" : anew ? "empty_written" : "empty_prompt");
    [stop.textContent, again.textContent] = [say("stop"), say("anew")];
  });

  async function write() {
    const asked = prompt.value();
    if (writing || asked === undefined) return;
    writing = new AbortController();
    busy(true);
    const request = begin(asked);
    const piece = paper.lastElementChild.querySelector(".piece") ?? paper.lastElementChild;
    const started = performance.now();
    let last = { tokens: 0, read: 0 };
    show("answered");
    try {
      await streamed({ ...request, ...rules.value() }, writing.signal, (told) => {
        if (told.piece) {
          last = told.piece[answer];
          piece.append(last.value);
          if (chat) paper.scrollTop = paper.scrollHeight;
        }
      });
      trip(last, performance.now() - started);
    } catch (error) {
      if (error.name !== "AbortError") return void failed(error, asked);
    } finally {
      writing = null;
      busy(false);
    }
    if (chat) turns.push({ role: "assistant", content: piece.textContent });
    prompt.box.focus();
  }

  // Shows what was asked and a place for the answer; the request.
  function begin(asked) {
    if (!chat) {
      paper.replaceChildren(...(anew ? [] : [make("span", "given", asked)]), make("span", "piece"));
      return { [column]: asked };
    }
    turns.push({ role: "user", content: asked });
    paper.append(turn("user", asked), turn("assistant", ""));
    prompt.clear();
    paper.scrollTop = paper.scrollHeight;
    return { messages: turns };
  }

  function failed(error, asked) {
    if (chat) {
      turns.pop(); // what was not answered may be written again
      paper.lastElementChild.remove();
      paper.lastElementChild.remove();
      prompt.box.value = asked;
    }
    refuse(error.told ?? { column: null, message: say("offline"), expected: null });
  }

  function trip(last, ms) {
    const facts = { tokens: figure(last.tokens, 6), read: figure(last.read, 6), rate: figure((1000 * last.tokens) / ms) };
    at("trip").textContent = say("trip_text", facts);
  }

  function busy(now) {
    [at("send").disabled, stop.disabled, again.disabled] = [now, !now, now];
    at("answer").setAttribute("aria-busy", String(now));
  }

  stop.addEventListener("click", () => writing?.abort());
  again.addEventListener("click", () => {
    turns = [];
    paper.replaceChildren();
    show("waiting");
  });
  prompt.box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
    if (!chat && !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    void write();
  });
  return write;
}

function turn(role, content) {
  const element = make("div", `turn ${role}`, [make("div", "piece", content)]);
  element.dataset.role = role;
  return element;
}

function button(id) {
  const one = make("button");
  [one.type, one.id] = ["button", id];
  return one;
}
