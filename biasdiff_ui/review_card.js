// One card at a time. A press shows the next card at once and enters a numbered log; the server acknowledges what it has
// recorded, and until then the log is sent again with each press. The browser keeps it too, by audit and auditor: a card that is made
// after the server died or the tab was closed sends what an earlier one left. Dataset text reaches the page by textContent only.

const KEPT = "biasdiff-review:";
const cards = new WeakMap(); // by the element that holds it: each update calls the function below again, and must find the same state
const refused = new Map(); // by name, the logs that the browser would not keep: they live as long as the page

// What a token's background shows. Okabe and Ito's colours, thin enough for the text on it in either palette; `of`: where the value
// stands in a piece [characters, loss, influence].
const SHADINGS = ["none", "influence", "loss"];
const SHADES = {
  influence: { of: 2, up: "213 94 0", down: "0 114 178", say: (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}` },
  loss: { of: 1, up: "0 158 115", down: "0 158 115", say: (value) => `${value.toFixed(2)} nats` },
};
const THICKEST = 0.55;
const STRONGEST = 3; // tokens named in the legend

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

// Where storage is refused or full, the page holds the log.
function keep({ audit, auditor, card, events }) {
  const name = KEPT + JSON.stringify([audit, auditor, card]);
  refused.delete(name);
  try {
    if (events.length) localStorage.setItem(name, JSON.stringify(events));
    else localStorage.removeItem(name);
  } catch {
    if (events.length) refused.set(name, events);
  }
}

function stored() {
  try {
    const names = Object.keys(localStorage).filter((name) => name.startsWith(KEPT));
    return names.map((name) => [name, JSON.parse(localStorage.getItem(name))]);
  } catch {
    return [];
  }
}

// The logs that this auditor's earlier cards left of this audit.
function left(audit, auditor) {
  const logs = [...new Map([...stored(), ...refused])].map(([name, events]) => {
    const [where, who, card] = JSON.parse(name.slice(KEPT.length));
    return { audit: where, auditor: who, card, events };
  });
  return logs.filter((log) => log.audit === audit && log.auditor === auditor);
}

function pieces(card) {
  return card.shades ? [...card.shades.prompt, ...card.shades.text] : [];
}

// The largest value among the card's tokens, which is shaded most.
function top(card, shade) {
  return Math.max(...pieces(card).map((piece) => Math.abs(piece[shade.of] ?? 0)), Number.MIN_VALUE);
}

// The text, inert, shaded where it is asked for. Pieces count characters (code points), as the server does.
function drawText(parent, text, cut, card, mode) {
  const shade = SHADES[mode];
  if (!shade || !card.shades) {
    parent.textContent = text;
    return;
  }
  const characters = Array.from(text);
  const most = top(card, shade);
  let start = 0;
  parent.replaceChildren();
  for (const [length, loss, influence] of cut) {
    const span = element("span", "", characters.slice(start, start + length).join(""));
    const value = shade.of === 1 ? loss : influence;
    const words = [influence === null ? "" : `influence ${SHADES.influence.say(influence)}`, loss === null ? "" : `loss ${SHADES.loss.say(loss)}`];
    span.title = words.filter(Boolean).join(", ");
    if (value !== null) span.style.backgroundColor = `rgb(${value < 0 ? shade.down : shade.up} / ${(THICKEST * Math.abs(value)) / most})`;
    parent.append(span);
    start += length;
  }
}

function swatch(colour, words) {
  const mark = element("span", "swatch");
  mark.style.backgroundColor = `rgb(${colour} / ${THICKEST})`;
  const made = element("span", "");
  made.append(mark, words);
  return made;
}

// What the shading shows, in words, with the strongest tokens and their numbers, which colour and tooltip alone would keep from some.
function legend(card, mode, unshaded) {
  const shade = SHADES[mode];
  if (!shade) return [];
  if (!card.shades) return [element("span", "", unshaded)];
  const says =
    mode === "influence"
      ? [swatch(shade.up, "raises"), swatch(shade.down, "lowers"), element("span", "", "the example's mean cosine to the probes, by what the model reads here")]
      : [swatch(shade.up, "loss: the model did not expect this token")];
  const named = strongest(card, shade).map(([words, value]) => `“${words}” ${shade.say(value)}`);
  const rest = mode === "influence" && card.shades.rest ? `; ${shade.say(card.shades.rest)} at no token: special tokens, shared momentum` : "";
  return [...says, element("span", "", `Strongest: ${named.join(", ")}${rest}`)];
}

function strongest(card, shade) {
  const found = [];
  for (const part of ["prompt", "text"]) {
    const characters = Array.from(card[part]);
    let start = 0;
    for (const piece of card.shades[part]) {
      const words = characters.slice(start, (start += piece[0])).join("").trim();
      if (piece[shade.of] !== null && words) found.push([words, piece[shade.of]]);
    }
  }
  return found.sort(([, a], [, b]) => Math.abs(b) - Math.abs(a)).slice(0, STRONGEST);
}

// Words of `cut` ([words, shared]): the shared ones in the class `shared`, the others underlined.
function marked(cut, shared = "") {
  return cut.map(([words, same]) => element("span", same ? shared : "other", words));
}

// A line of the nearest probes: cosine (null: not known), what it is, text.
function probeLine(cosine, type, cut) {
  const text = element("div");
  text.append(...marked(cut));
  return [element("div", "number", cosine === null ? "" : cosine.toFixed(3)), element("div", "type", type), text];
}

class Card {
  constructor(root) {
    this.logs = []; // what is not acknowledged, by card; its own is the last
    this.sendings = 0;
    this.chosen = ""; // reason
    this.trail = []; // what `back` returns over: {place, kind}
    this.known = new Map(); // place -> card
    this.probes = {};
    this.others = {};
    this.shown = null;
    this.waits = false; // for a queue that it has asked for: until then nothing is shown, so nothing can be judged
    this.shading = SHADINGS[0];
    this.root = element("section", "card");
    this.root.setAttribute("aria-label", "Review card");
    root.appendChild(this.root);
    this.listen(document, "keydown", (event) => this.key(event));
    this.listen(window, "beforeunload", (event) => { if (this.waiting) event.preventDefault(); });
  }

  // As long as the card is on the page.
  listen(target, name, act) {
    const heard = (event) => {
      if (this.root.isConnected) act(event);
      else target.removeEventListener(name, heard);
    };
    target.addEventListener(name, heard);
  }

  update(data, send) {
    this.send = send;
    this.data = data;
    this.waits = false;
    if (data.audit !== this.own?.audit || data.auditor !== this.own.auditor) this.begin(data);
    this.acknowledge(data.acknowledged);
    this.probes = { ...this.probes, ...data.probes };
    this.others = { ...this.others, ...data.others };
    if (data.queue !== this.queue) {
      if (this.waiting) this.transmit(); // the server may be another one, which has not heard of it
      this.queue = data.queue;
      this.place = data.place;
      this.known.clear();
      this.trail = [];
      this.shown = null;
    }
    for (const card of data.cards) this.known.set(card.place, card);
    if (!this.parts) this.build();
    this.label();
    this.draw();
  }

  get own() { return this.logs.at(-1); }

  get waiting() { return this.logs.reduce((sum, log) => sum + log.events.length, 0); }

  // A log of its own for each audit and auditor, so that no press is ever sent as another's.
  begin({ audit, auditor }) {
    const card = crypto.getRandomValues(new Uint32Array(2)).join("-");
    this.number = 0;
    this.logs = [...left(audit, auditor), { audit, auditor, card, events: [] }];
  }

  acknowledge(done) {
    for (const log of this.logs) {
      log.events = log.events.filter((event) => event.number > (done[log.card] ?? 0));
      keep(log);
    }
    this.logs = this.logs.filter((log) => log.events.length || log === this.own);
  }

  // No two sendings are alike, for Streamlit takes no notice of a value that it has already.
  transmit() {
    this.sendings += 1;
    this.send("log", { sending: `${this.own.card} ${this.sendings}`, logs: this.logs.map((log) => ({ ...log })) });
  }

  get card() { return this.waits ? undefined : this.known.get(this.place); }

  key(event) {
    if (event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || typing(event)) return;
    if (!this.data.keys.on || document.querySelector('[role="dialog"]')) return;
    const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = pressed === "Backspace" ? "back" : Object.keys(this.data.keys.of).find((name) => this.data.keys.of[name] === pressed);
    if (!act) return;
    this.act(act);
    event.preventDefault();
  }

  act(name) {
    if (name === "back") this.back();
    else if (name === "similar") this.similar();
    else if (name === "shade") this.shade();
    else if (this.data.reasons.includes(name)) this.choose(name);
    else this.judge(name);
  }

  similar() {
    const card = this.card;
    if (!card || this.data.noSimilar) return;
    this.log("similar", card, "");
    this.waits = true;
    this.draw();
  }

  shade() {
    this.shading = SHADINGS[(SHADINGS.indexOf(this.shading) + 1) % SHADINGS.length];
    this.shown = null;
    this.draw();
  }

  // The reason of the next verdict; once more, none.
  choose(reason) {
    if (!this.card) return;
    this.chosen = this.chosen === reason ? "" : reason;
    this.draw();
  }

  judge(kind) {
    const card = this.card;
    if (!card) return; // nothing is shown, so nothing can be judged
    this.trail.push({ place: this.place, kind });
    this.place += 1;
    this.log(kind, card, kind === "skip" ? "" : this.reason());
    this.chosen = "";
    this.parts.note.value = "";
    this.draw();
  }

  back() {
    if (this.waits || !this.trail.length) return; // nothing is shown that a verdict could be taken back to
    const last = this.trail.pop();
    this.place = last.place;
    this.log(last.kind === "skip" ? "back" : "undo", this.card, "");
    this.draw();
  }

  reason() {
    return [this.chosen, this.parts.note.value.trim()].filter(Boolean).join(": ");
  }

  log(kind, card, reason) {
    this.number += 1;
    // What was shown at the press goes with it: the server may be at another queue when it arrives.
    const shown = { example: card.id, drawn: card.drawn, queue: this.data.kind, token: this.queue };
    this.own.events = [...this.own.events, { number: this.number, kind, reason, place: this.place, ...shown }];
    keep(this.own);
    this.transmit();
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
    parts.buttons = this.data.verdicts.map(([kind, word, colour, help]) => {
      const button = this.button(word, kind);
      button.classList.add("verdict");
      button.style.borderLeftColor = colour;
      button.title = help;
      return button;
    });
    parts.buttons.push(this.button("skip", "skip"), (parts.similar = this.button("similar to this", "similar")));
    parts.undo = this.button("back, undo", "back");
    buttons.append(...parts.buttons, parts.undo);
    const why = element("div", "row");
    parts.reasons = this.data.reasons.map((reason) => this.button(reason, reason));
    const reasons = element("div", "row reasons");
    reasons.setAttribute("role", "group");
    reasons.setAttribute("aria-label", "Reason");
    reasons.append(element("span", "", "Reason"), ...parts.reasons);
    parts.note = element("input");
    parts.note.setAttribute("aria-label", "Note");
    parts.note.maxLength = 300;
    parts.note.placeholder = "optional";
    const note = element("label", "note", "Note");
    note.append(parts.note);
    why.append(reasons, note);
    parts.why = element("div");
    const shading = element("div", "row shading");
    shading.append(this.button("shade by token", "shade"), (parts.legend = element("span", "legend")));
    this.root.append(top, text, shading, buttons, why, parts.why);
  }

  button(word, act) {
    const made = element("button");
    made.type = "button";
    made.dataset.act = act;
    made.append(element("kbd"), word);
    made.addEventListener("click", () => this.act(act));
    return made;
  }

  // Hints follow the auditor's keys.
  label() {
    const { on, of } = this.data.keys;
    for (const button of this.root.querySelectorAll("button[data-act]")) {
      const key = of[button.dataset.act];
      button.firstChild.textContent = key.toUpperCase();
      button.firstChild.hidden = !on;
      if (on) button.setAttribute("aria-keyshortcuts", key);
      else button.removeAttribute("aria-keyshortcuts");
    }
    this.parts.similar.title = this.data.noSimilar || "The examples whose gradients are nearest to this one's, as a queue of its own";
  }

  draw() {
    const { parts, card, data } = this;
    const { waiting } = this;
    const held = refused.size ? " the browser keeps nothing: leave this page open" : "";
    parts.saved.textContent = waiting ? `saving ${waiting} …${held}` : this.sendings ? "all saved" : "";
    parts.saved.classList.toggle("waiting", waiting > 0);
    parts.undo.disabled = !this.trail.length;
    for (const button of [...parts.buttons, ...parts.reasons]) button.disabled = !card;
    for (const button of parts.reasons) button.setAttribute("aria-pressed", button.dataset.act === this.chosen);
    parts.similar.disabled = !card || Boolean(data.noSimilar);
    if (this.shown === card && card) return;
    this.shown = card;
    this.root.dataset.example = card ? card.id : "";
    if (!card) {
      const over = this.place >= data.length;
      parts.where.textContent = `${Math.min(this.place, data.length)} of ${data.length} seen`;
      parts.prompt.hidden = true;
      parts.legend.replaceChildren();
      parts.body.textContent = this.waits
        ? "Looking for similar examples …"
        : over ? "This is the end of the queue. Refresh it to see what is left." : "Loading more …";
      parts.why.replaceChildren();
      return;
    }
    const where = [`${this.place + 1} of ${data.length} in the queue`, `rank ${card.rank} of ${card.total}`, `score ${card.score.toFixed(4)}`];
    if (card.cosine !== null) where.unshift(`cosine ${card.cosine.toFixed(3)}`);
    parts.where.textContent = [...where, `source ${card.source}`, `group ${card.group}`].join(" · ");
    parts.prompt.hidden = !card.prompt;
    drawText(parts.prompt, card.prompt, card.shades?.prompt, card, this.shading);
    drawText(parts.body, card.text, card.shades?.text, card, this.shading);
    parts.legend.replaceChildren(...legend(card, this.shading, data.unshaded));
    parts.body.scrollTop = 0;
    parts.why.replaceChildren(...this.why(card));
  }

  why(card) {
    const made = [];
    if (card.given.length) made.push(element("h3", "", "Verdicts given"));
    for (const [name, verdict, reason] of card.given) made.push(element("p", "probe", `${name}: ${verdict}${reason && `, ${reason}`}`));
    if (card.nearest.length) {
      const closest = element("p", "probe");
      closest.append(...marked(card.difference, "shared"));
      made.push(element("h3", "", "Closest probe: words in common are bold, others underlined"), closest);
      const near = element("div", "near");
      for (const [id, cosine, twinCosine] of card.nearest) {
        const [text, twin, type] = this.probes[id] ?? [[], [], ""];
        near.append(...probeLine(cosine, type, text));
        if (twin.length) near.append(...probeLine(twinCosine, "twin", twin));
      }
      made.push(element("h3", "", "Nearest probes, with the cosine of their gradients; what a probe and its twin do not share is underlined"), near);
    }
    if (card.contrast !== null) {
      const sign = card.contrast < 0 ? "−" : "+";
      const words = `${sign}${Math.abs(card.contrast).toFixed(4)}: mean cosine to the probes less that to their anti-stereotype twins`;
      made.push(element("h3", "", "Twin difference"), element("p", "probe", words));
    }
    const ranks = card.scorers.map(([name, rank]) => `${name} ${rank}`).join(" · ");
    made.push(element("h3", "", "Rank by other scorers"), element("p", "probe", ranks));
    if (card.checkpoints.length) {
      const each = card.checkpoints.map(([name, rank]) => `${name}: ${rank}`).join(" · ");
      made.push(element("h3", "", "Rank at each checkpoint, by mean cosine to the probes"), element("p", "probe", each));
    }
    const listed = card.copies > card.duplicates.length ? `; the first ${card.duplicates.length}` : "";
    made.push(...this.table(`Duplicates: ${card.copies} with the same or nearly the same text${listed}`, card.duplicates));
    made.push(...this.table("Nearest on the map", card.neighbours));
    return made;
  }

  // Other examples by id: rank, decision, text.
  table(title, ids) {
    const known = ids.map((id) => this.others[id]).filter(Boolean);
    if (!known.length) return [];
    const made = element("div", "near");
    for (const [rank, text, decision] of known) {
      made.append(element("div", "number", `rank ${rank}`), element("div", "type", decision), element("div", "", text));
    }
    return [element("h3", "", title), made];
  }
}

// There is no cleanup, for it is called between updates too, now before and now after the next one: a card that has left the page
// lets go of it at the next event.
export default function ({ data, parentElement, setStateValue }) {
  if (!cards.has(parentElement)) cards.set(parentElement, new Card(parentElement));
  cards.get(parentElement).update(data, setStateValue);
}
