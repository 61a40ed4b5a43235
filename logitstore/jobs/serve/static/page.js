/**
 * The listening page: search a store's clips, hear and see what its teachers heard, and judge labels.
 * What is shown is in the address (after #), so that a link opens the same search and clip.
 */

import { ClipPane, Library, ORIGINAL } from "./clip.js";
import { byId, el, icon, spoken } from "./dom.js";
import { JudgingBar, VERDICTS } from "./judging.js";
import { OfflineProvider, ServerProvider } from "./provider.js";
import { Results } from "./results.js";
import { Settings } from "./settings.js";
import { Verdicts } from "./verdicts.js";

const FIELDS = ["text", "class", "verdict", "question", "sort", "descending", "where"];
const KEYS = [
  ["j", "↓", "next clip"], ["k", "↑", "clip before"], ["Enter", "", "open the clip of the list"], ["Space", "", "play, pause"],
  ["o", "", "original"], ["0 to 9", "", "view 0 to 9"], ["b", "", "original against view, at the same place"], ["←", "→", "half a second back, forth"],
  ["l", "", "repeat"], ["r", "", "verdict: right"], ["w", "", "verdict: wrong"], ["u", "", "verdict: unsure"],
  ["n", "", "note"], ["t", "", "the right label"], ["z", "", "undo the last verdict"], ["/", "", "search"], ["Esc", "", "out of a field, back to the list"], ["?", "", "this help"],
];

class Page {
  settings = new Settings();
  /** @type {any} */ provider;
  /** @type {any} */ store;
  /** @type {URLSearchParams|null} */ searched = null;
  following = 0;
  opening = 0;

  async begin() {
    this.theme();
    this.provider = byId("data") ? await OfflineProvider.open() : new ServerProvider();
    this.store = await this.provider.store();
    this.library = new Library(this.provider, this.store.sample_rate);
    this.results = new Results(this.provider, this.store);
    this.pane = new ClipPane(byId("clip"), this.store, this.library, this.provider);
    this.bar = new JudgingBar(this.store, this.settings);
    this.verdicts = new Verdicts(this.provider, `${this.store.location} ${this.store.verdicts_file}`);
    this.fill();
    this.listen();
    await this.follow();
    await this.verdicts.begin();
  }

  /** What the store has, into the form and the help. */
  fill() {
    const { store } = this;
    document.title = `${store.name}: listen`;
    byId("store-name").textContent = store.name;
    byId("classes").append(...store.classes.map((name) => el("option", { value: name })));
    const usable = store.questions.filter((each) => each.usable);
    byId("question").append(...usable.map((each) => el("option", { value: each.name, title: each.tells }, each.asks)));
    byId("question").disabled = !usable.length;
    byId("sort").append(el("option", { value: "" }, "as found"), ...store.measures.map((each) => el("option", { value: each.name }, each.title)),
      el("option", { value: "path" }, "Path"), el("option", { value: "clip" }, "Number of the clip"));
    byId("where-label").hidden = this.provider.offline;
    if (this.provider.offline) byId("further").firstElementChild.textContent = "Order";
    byId("keys").append(...KEYS.map(([key, other, does]) => el("div", {}, el("dt", {}, el("kbd", {}, key), other && " ", other && el("kbd", {}, other)), el("dd", {}, does))));
    byId("settings").append(this.settings.box("next"), this.settings.box("play"), this.settings.box("keys"));
    if (this.provider.offline) {
      const name = el("input", { value: this.provider.person, maxlength: 100, onchange: () => (this.provider.person = name.value) });
      byId("settings").append(el("label", { class: "plain" }, "Your name in verdicts.csv ", name));
    }
    byId("about").textContent = this.provider.offline
      ? `${store.clips.toLocaleString("en")} clips of ${store.location}, sounds as Opus. Verdicts stay in this browser until you download them; put verdicts.csv beside the store, and logitstore reads it.`
      : `${store.clips.toLocaleString("en")} clips with ${store.views} views each of ${store.location}, at ${store.sample_rate.toLocaleString("en")} Hz; recipe ${store.recipe}${store.ops.length ? `: ${store.ops.join(", ")}` : ""}. Verdicts of ${store.person} go to ${store.verdicts_file}.`;
  }

  listen() {
    byId("search").addEventListener("submit", (event) => (event.preventDefault(), this.ask()));
    byId("search").addEventListener("reset", () => setTimeout(() => (this.parameters(), this.ask())));
    for (const name of ["verdict", "question", "sort", "descending"]) byId(name).addEventListener("change", () => (name === "question" && this.parameters(), this.ask()));
    byId("class").addEventListener("change", () => this.ask());
    this.results.addEventListener("open", (event) => this.go({ clip: event.detail, view: null }));
    this.pane.addEventListener("chosen", (event) => this.chosen(event.detail));
    this.pane.player.addEventListener("play", () => this.tell(`Playing ${this.pane.view === ORIGINAL ? "the original" : `view ${this.pane.view}`}`));
    this.bar.addEventListener("given", (event) => this.judge(event.detail));
    this.bar.addEventListener("undo", () => this.undo());
    this.verdicts.addEventListener("changed", () => this.counted());
    this.verdicts.addEventListener("refused", (event) => this.refused(event.detail));
    this.settings.addEventListener("changed", () => this.theme());
    byId("theme").addEventListener("change", () => this.settings.set("theme", byId("theme").value));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.pane.recolour());
    byId("help-open").addEventListener("click", () => byId("help").showModal());
    addEventListener("hashchange", () => this.follow());
    addEventListener("beforeunload", (event) => this.verdicts.waiting.length && event.preventDefault());
    document.addEventListener("keydown", (event) => this.key(event));
  }

  theme() {
    const theme = this.settings.get("theme");
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    byId("theme").value = theme;
    this.pane?.recolour();
  }

  /** Search for what the form says. */
  ask() {
    const query = new URLSearchParams();
    for (const name of FIELDS) if (byId(name).value.trim()) query.set(name, byId(name).value.trim());
    for (const input of byId("parameters").querySelectorAll("input")) if (input.value.trim()) query.set(input.name, input.value.trim());
    location.hash = String(query);
  }

  /** Change what the address says of the clip; null takes something away. @param {Object<string, any>} changes */
  go(changes) {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const [name, value] of Object.entries(changes)) {
      if (value === null) state.delete(name);
      else state.set(name, String(value));
    }
    location.hash = String(state);
  }

  /** Show what the address says. */
  async follow() {
    const following = ++this.following;
    const state = new URLSearchParams(location.hash.slice(1));
    const clip = state.get("clip"), view = state.get("view") ?? ORIGINAL;
    state.delete("clip");
    state.delete("view");
    if (String(state) !== String(this.searched)) {
      this.searched = state;
      for (const name of FIELDS) byId(name).value = state.get(name) ?? "";
      byId("further").open ||= Boolean(state.get("descending") || state.get("where"));
      this.parameters(state);
      if (clip === null) this.closed();
      await this.results.search(state);
      if (following !== this.following) return;
    }
    if (clip === null) this.closed();
    else if (String(this.pane.clip?.clip) !== clip) await this.open(clip, view);
    else if (view !== this.pane.view) await this.pane.choose(view);
  }

  /** @param {string} number @param {string} view */
  async open(number, view) {
    const opening = ++this.opening;
    const within = byId("clip").contains(document.activeElement) && document.activeElement.id;
    let clip;
    try {
      clip = await this.library.clip(Number(number));
    } catch (error) {
      if (opening !== this.opening) return;
      this.closed();
      byId("clip").hidden = false;
      byId("clip").replaceChildren(el("p", { class: "trouble", role: "alert" }, error.message));
      return;
    }
    if (opening !== this.opening) return;
    document.body.classList.add("opened");
    this.results.mark(clip.clip);
    this.bar.show(this.verdicts.waiting.find((each) => each.clip === clip.clip) ?? clip.verdict);
    const shown = this.pane.show(clip, view, this.bar.element);
    byId("clip").prepend(this.ways());
    byId("clip").scrollTop = 0;
    if (within === false || !document.activeElement?.closest("#search")) byId("clip-title").focus({ preventScroll: true });
    this.tell(`${this.before ?? ""}Clip ${clip.clip}, ${clip.path}${clip.label === null ? "" : `, label ${clip.label}`}`);
    this.before = "";
    await shown;
    if (opening !== this.opening) return;
    if (this.settings.get("play")) await this.pane.player.play();
    const next = this.results.following;
    if (next !== null) {
      const early = await this.library.clip(next).catch(() => null); // an error is shown when it is opened
      if (early && !early.failed) this.library.sound(next, ORIGINAL).catch(() => null);
    }
  }

  /** Back to the list, and to the clips before and after. */
  ways() {
    const to = (name, title, does) => el("button", { type: "button", "aria-label": title, onclick: does }, icon(name));
    return el("nav", { class: "ways", "aria-label": "Clips" },
      el("button", { type: "button", class: "to-list", onclick: () => this.go({ clip: null, view: null }) }, icon("back"), "Results"),
      el("span", { class: "grow" }),
      to("back", "Clip before", () => this.step(-1)), to("forth", "Next clip", () => this.step(1)));
  }

  closed() {
    this.opening++;
    const was = this.results.at;
    this.pane.close();
    document.body.classList.remove("opened");
    this.results.mark(null);
    if (was >= 0) byId("results").children[was]?.firstElementChild.focus();
  }

  /** The address follows the view, without a step of the browser's history for each. @param {string} view */
  chosen(view) {
    const state = new URLSearchParams(location.hash.slice(1));
    if (view === ORIGINAL) state.delete("view");
    else state.set("view", view);
    history.replaceState(null, "", `#${state}`);
  }

  /** @param {number} by 1 for the next clip, -1 for the one before */
  async step(by) {
    const focused = document.activeElement?.closest(".row");
    if (!this.pane.clip && focused) this.results.at = [...byId("results").children].indexOf(focused.parentElement);
    const clip = await this.results.neighbour(by);
    if (clip === null) return this.tell(by > 0 ? "This was the last clip" : "This is the first clip");
    if (this.pane.clip) return this.go({ clip, view: null });
    const place = this.results.rows.findIndex((row) => row.clip === clip);
    byId("results").children[place].firstElementChild.focus();
  }

  /** @param {{verdict: string|null, note: string, label: string|null}} given */
  async judge({ verdict, note, label }) {
    const { clip } = this.pane.clip;
    const held = verdict ? { verdict, note, label } : null;
    this.bar.show(held);
    this.results.judged(clip, held);
    this.library.forget(clip);
    const saving = this.verdicts.judge(clip, verdict, note, label);
    this.tell(verdict ? `Clip ${clip} judged ${verdict}` : `No verdict on clip ${clip}`);
    if (verdict && this.settings.get("next")) await this.step(1);
    await saving;
  }

  async undo() {
    try {
      const { clip, verdict } = await this.verdicts.undo();
      this.library.forget(clip);
      this.results.judged(clip, verdict);
      const told = clip === null ? "Taken back, of a clip of another store" : `Taken back: clip ${clip} is ${verdict ? `judged ${verdict.verdict}` : "not judged"} now`;
      if (clip !== null && this.pane.clip?.clip !== clip) {
        this.before = `${told}. `; // said with what is said of the clip, which is opened now
        this.go({ clip, view: null });
        return;
      }
      if (clip !== null) this.bar.show(verdict);
      this.tell(told);
    } catch (error) {
      this.tell(error.message, true);
    }
  }

  /** How many verdicts there are, and which could not be saved. */
  counted() {
    const { counts, waiting, reason } = this.verdicts;
    byId("counts").replaceChildren(...VERDICTS.flatMap(([name]) => [el("span", { class: `count ${name}`, title: name }, icon(name), spoken(name), ` ${counts[name].toLocaleString("en")}`)]),
      ...(!this.provider.offline ? [] : [ el("button", { type: "button", onclick: () => this.download() }, "Download verdicts.csv")]));
    const again = el("button", { type: "button", onclick: () => this.verdicts.retry() }, "Try again");
    byId("notice").replaceChildren(...(waiting.length && reason
      ? [el("p", { class: "trouble" }, `${waiting.length === 1 ? "A verdict is" : `${waiting.length} verdicts are`} not saved: ${reason}. Kept here, and tried again every few seconds. `, again)]
      : []));
  }

  /** @param {any} refused a verdict that the server does not take, and why */
  refused({ clip, reason }) {
    this.library.forget(clip);
    this.results.judged(clip, null);
    if (this.pane.clip?.clip === clip) this.bar.show(null);
    this.tell(`The verdict on clip ${clip} was not saved: ${reason}`, true);
  }

  download() {
    const link = el("a", { href: URL.createObjectURL(new Blob([this.provider.csv()], { type: "text/csv" })), download: "verdicts.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  /** Fields for what the chosen question has to be told. @param {URLSearchParams} [state] */
  parameters(state = new URLSearchParams()) {
    const question = this.store.questions.find((each) => each.name === byId("question").value);
    byId("parameters").replaceChildren(...(this.provider.offline ? [] : question?.parameters ?? []).map((each) =>
      el("label", { title: each.meaning }, `${each.name.replaceAll("_", " ")} `,
        el("input", { name: `p.${each.name}`, value: state.get(`p.${each.name}`) ?? "", placeholder: each.default ?? "", onchange: () => this.ask() }))));
    byId("parameters").hidden = !byId("parameters").children.length;
  }

  /** Say something to screen readers; where it is trouble, to all. @param {string} text @param {boolean} [trouble] */
  tell(text, trouble = false) {
    byId("told").textContent = text;
    if (!trouble) return;
    const close = el("button", { type: "button", onclick: () => byId("notice").replaceChildren() }, "Close");
    byId("notice").replaceChildren(el("p", { class: "trouble" }, `${text}. `, close));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { target, key } = event, field = target.closest("input:not([type=checkbox]):not([type=range]), select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    if (key === "Escape") {
      if (field) field.blur();
      else if (this.pane.clip) this.go({ clip: null, view: null });
      return;
    }
    if (field || !this.settings.get("keys")) return;
    if ((key === " " || key === "Enter") && target.closest("button, a, input, summary")) return;
    if (target.type === "range" && key.startsWith("Arrow")) return;
    const does = this.does(key);
    if (!does) return;
    event.preventDefault();
    does();
  }

  /** What a key does here, undefined for nothing. @param {string} key @returns {(() => any)|undefined} */
  does(key) {
    const anywhere = {
      j: () => this.step(1), ArrowDown: () => this.step(1), k: () => this.step(-1), ArrowUp: () => this.step(-1),
      z: () => this.undo(), "/": () => byId("text").focus(), "?": () => byId("help").showModal(),
    };
    if (anywhere[key]) return anywhere[key];
    const { pane, bar } = this;
    if (!pane.clip) return undefined;
    const verdict = VERDICTS.find(([, , letter]) => letter === key)?.[0];
    if (verdict) return () => bar.give(verdict);
    if (/^\d$/.test(key) && pane.clip.views.some((each) => String(each.view) === key)) return () => pane.choose(key);
    const open = {
      " ": () => pane.toggle(), o: () => pane.choose(ORIGINAL), b: () => pane.swap(), l: () => pane.repeat(),
      ArrowLeft: () => (pane.player.currentTime -= 0.5), ArrowRight: () => (pane.player.currentTime += 0.5),
      n: () => bar.note.focus(), t: () => bar.label.focus(),
    };
    return open[key];
  }
}

const page = new Page();
page.begin().catch((error) => page.tell(error.message, true));
