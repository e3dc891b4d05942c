// One card at a time. A press shows the next card at once and enters a numbered log; the server acknowledges what it has
// recorded, and until then the log is sent again with each press. Dataset text reaches the page by textContent only.

const cards = new Map(); // by instance: a data update calls the function below again, and must find the same state

const KEYS_BACK = ["z", "Backspace"];
const KEY_SKIP = "s";

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function typing(event) {
  const target = event.composedPath()[0];
  if (!(target instanceof Element)) return false;
  return target.closest("input, textarea, select, [contenteditable]") !== null || target.isContentEditable;
}

class Card {
  constructor(root) {
    this.name = crypto.getRandomValues(new Uint32Array(2)).join("-");
    this.number = 0;
    this.pending = [];
    this.trail = []; // what `back` returns over: {place, kind}
    this.known = new Map(); // place -> card
    this.probes = {};
    this.shown = null;
    this.onKey = (event) => this.key(event);
    this.onLeave = (event) => { if (this.pending.length) event.preventDefault(); };
    this.root = element("section", "card");
    this.root.setAttribute("aria-label", "Review card");
    root.appendChild(this.root);
  }

  attach() {
    document.addEventListener("keydown", this.onKey);
    window.addEventListener("beforeunload", this.onLeave);
  }

  detach() {
    document.removeEventListener("keydown", this.onKey);
    window.removeEventListener("beforeunload", this.onLeave);
  }

  update(data, send) {
    this.send = send;
    this.data = data;
    const done = data.acknowledged[this.name] ?? 0;
    this.pending = this.pending.filter((event) => event.number > done);
    this.probes = { ...this.probes, ...data.probes };
    if (data.queue !== this.queue) {
      this.queue = data.queue;
      this.place = data.place;
      this.known.clear();
      this.trail = [];
      this.shown = null;
    }
    for (const card of data.cards) this.known.set(card.place, card);
    if (!this.parts) this.build();
    this.draw();
  }

  get card() { return this.known.get(this.place); }

  key(event) {
    if (event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || typing(event)) return;
    if (document.querySelector('[role="dialog"]')) return;
    const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const verdict = this.data.verdicts.find(([, , key]) => key === pressed);
    if (verdict) this.judge(verdict[0]);
    else if (pressed === KEY_SKIP) this.judge("skip");
    else if (KEYS_BACK.includes(pressed)) this.back();
    else return;
    event.preventDefault();
  }

  judge(kind) {
    const card = this.card;
    if (!card) return; // nothing is shown, so nothing can be judged
    this.trail.push({ place: this.place, kind });
    this.place += 1;
    this.log(kind, card, kind === "skip" ? "" : this.reason());
    this.parts.reason.value = "";
    this.parts.note.value = "";
    this.draw();
  }

  back() {
    const last = this.trail.pop();
    if (!last) return;
    this.place = last.place;
    this.log(last.kind === "skip" ? "back" : "undo", this.card, "");
    this.draw();
  }

  reason() {
    return [this.parts.reason.value, this.parts.note.value.trim()].filter(Boolean).join(": ");
  }

  log(kind, card, reason) {
    this.number += 1;
    // What was shown at the press goes with it: the server may be at another queue when it arrives.
    const shown = { example: card.id, drawn: card.drawn, queue: this.data.kind };
    this.pending.push({ number: this.number, kind, reason, place: this.place, ...shown });
    this.send("log", { card: this.name, queue: this.queue, events: [...this.pending] });
  }

  build() {
    const parts = (this.parts = {});
    const top = element("div", "line");
    top.append((parts.where = element("span")), (parts.saved = element("span", "end")));
    parts.saved.setAttribute("role", "status");
    const text = element("div", "text");
    text.append((parts.prompt = element("div", "prompt")), (parts.body = element("div", "body")));
    parts.body.tabIndex = 0;
    const buttons = element("div", "row verdicts");
    parts.buttons = this.data.verdicts.map(([kind, word, key, colour, help]) => {
      const button = this.button(word, key, () => this.judge(kind));
      button.classList.add("verdict");
      button.style.borderLeftColor = colour;
      button.title = help;
      return button;
    });
    parts.buttons.push(this.button("skip", KEY_SKIP, () => this.judge("skip")));
    parts.undo = this.button("back, undo", KEYS_BACK[0], () => this.back());
    buttons.append(...parts.buttons, parts.undo);
    const why = element("div", "row");
    parts.reason = element("select");
    parts.reason.append(new Option("none", ""), ...this.data.reasons.map((reason) => new Option(reason, reason)));
    parts.reason.setAttribute("aria-label", "Reason");
    parts.note = element("input");
    parts.note.setAttribute("aria-label", "Note");
    parts.note.maxLength = 300;
    parts.note.placeholder = "optional";
    const reason = element("label", "", "Reason");
    reason.append(parts.reason);
    const note = element("label", "note", "Note");
    note.append(parts.note);
    why.append(reason, note);
    parts.why = element("div");
    this.root.append(top, text, buttons, why, parts.why);
  }

  button(word, key, act) {
    const made = element("button");
    made.type = "button";
    made.append(element("kbd", "", key.toUpperCase()), word);
    made.setAttribute("aria-keyshortcuts", key);
    made.addEventListener("click", act);
    return made;
  }

  draw() {
    const { parts, card, data } = this;
    const waiting = this.pending.length;
    parts.saved.textContent = waiting ? `saving ${waiting} …` : this.number ? "all saved" : "";
    parts.saved.classList.toggle("waiting", waiting > 0);
    parts.undo.disabled = !this.trail.length;
    for (const button of parts.buttons) button.disabled = !card;
    if (this.shown === card && card) return;
    this.shown = card;
    this.root.dataset.example = card ? card.id : "";
    if (!card) {
      const over = this.place >= data.length;
      parts.where.textContent = `${Math.min(this.place, data.length)} of ${data.length} seen`;
      parts.prompt.hidden = true;
      parts.body.textContent = over ? "This is the end of the queue. Refresh it to see what is left." : "Loading more …";
      parts.why.replaceChildren();
      return;
    }
    const where = [`${this.place + 1} of ${data.length} in the queue`, `rank ${card.rank} of ${card.total}`, `score ${card.score.toFixed(4)}`];
    parts.where.textContent = [...where, `source ${card.source}`, `group ${card.group}`].join(" · ");
    parts.prompt.hidden = !card.prompt;
    parts.prompt.textContent = card.prompt;
    parts.body.textContent = card.text;
    parts.body.scrollTop = 0;
    parts.why.replaceChildren(...this.why(card));
  }

  why(card) {
    const made = [];
    if (card.given.length) made.push(element("h3", "", "Verdicts given"));
    for (const [name, verdict, reason] of card.given) made.push(element("p", "probe", `${name}: ${verdict}${reason && `, ${reason}`}`));
    if (card.nearest.length) {
      const closest = element("p", "probe");
      for (const [piece, shared] of card.difference) closest.append(element("span", shared ? "shared" : "other", piece));
      made.push(element("h3", "", "Closest probe: words in common are bold, others underlined"), closest);
      const near = element("div", "near");
      for (const [id, cosine] of card.nearest) {
        const [text, twin, type] = this.probes[id] ?? ["", "", ""];
        const words = element("div", "", text);
        if (twin) words.append(element("div", "twin", `twin: ${twin}`));
        near.append(element("div", "number", cosine.toFixed(3)), element("div", "type", type), words);
      }
      made.push(element("h3", "", "Nearest probes, with the cosine of their gradients"), near);
    }
    if (card.contrast !== null) {
      const sign = card.contrast < 0 ? "−" : "+";
      const words = `${sign}${Math.abs(card.contrast).toFixed(4)}: mean cosine to the probes less that to their anti-stereotype twins`;
      made.push(element("h3", "", "Twin difference"), element("p", "probe", words));
    }
    const ranks = card.scorers.map(([name, rank]) => `${name} ${rank}`).join(" · ");
    made.push(element("h3", "", "Rank by other scorers"), element("p", "probe", ranks));
    if (card.duplicates) made.push(element("p", "probe", `${card.duplicates} other example(s) have the same or nearly the same text.`));
    return made;
  }
}

export default function (component) {
  const { key, data, parentElement, setStateValue } = component;
  let card = cards.get(key);
  if (!card || card.root.getRootNode() !== parentElement.getRootNode()) {
    card?.detach();
    card = new Card(parentElement);
    cards.set(key, card);
  }
  card.attach();
  card.turn = (card.turn ?? 0) + 1;
  const turn = card.turn;
  card.update(data, setStateValue);
  return () => {
    // A superseded update is cleaned up too, while the card lives on.
    if (card.turn === turn) {
      card.detach();
      cards.delete(key);
    }
  };
}
