/** The open clip: how its original and its views sound and look, what was drawn, and what the teachers said of them. */

import { el, fileAndFolder, icon, number, seconds, share, spoken } from "./dom.js";
import { heightOf, logMel, paint } from "./mel.js";
import { decoded, Player } from "./player.js";

const HERTZ = [0, 100, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000];
const SHOWN_CLASSES = 8, KEPT_SOUNDS = 48, KEPT_CLIPS = 24;
export const ORIGINAL = "original";

/** What clips and sounds the page has asked for lately. */
export class Library {
  #provider;
  #rate;
  #clips = new Map();
  #sounds = new Map();

  /** @param {any} provider @param {number} rate of the store, in Hz */
  constructor(provider, rate) {
    this.#provider = provider;
    this.#rate = rate;
  }

  /** @param {number} number */
  clip(number) {
    return kept(this.#clips, number, KEPT_CLIPS, () => this.#provider.clip(number));
  }

  /** @param {number} clip @param {string} view @returns {Promise<{buffer: AudioBuffer, picture: any}>} */
  sound(clip, view) {
    return kept(this.#sounds, `${clip}/${view}`, KEPT_SOUNDS, async () => {
      const buffer = await decoded(await this.#provider.audio(clip, view), this.#rate);
      return { buffer, picture: logMel(buffer.getChannelData(0), this.#rate) };
    });
  }

  /** Forget a clip: its verdicts changed. @param {number} number */
  forget(number) {
    this.#clips.delete(number);
  }
}

/** A promise from a map of the latest ones; a failed one is forgotten, so that it is asked anew. */
function kept(map, key, most, ask) {
  const found = map.get(key) ?? ask();
  map.delete(key);
  map.set(key, found);
  if (map.size > most) map.delete(map.keys().next().value);
  found.catch(() => map.get(key) === found && map.delete(key));
  return found;
}

/** Shows one clip after the other in one place of the page. */
export class ClipPane extends EventTarget {
  player = new Player();
  /** @type {any} */
  clip = null;
  view = ORIGINAL;
  /** What a switch goes back to. */
  other = "";
  #place;
  #store;
  #library;
  #provider;
  #parts = /** @type {any} */ ({});
  #wave = /** @type {any} */ (null);

  /** @param {HTMLElement} place @param {any} store @param {Library} library @param {any} provider */
  constructor(place, store, library, provider) {
    super();
    this.#place = place;
    this.#store = store;
    this.#library = library;
    this.#provider = provider;
    this.player.addEventListener("timeupdate", () => this.#follow());
    for (const event of ["play", "pause"]) this.player.addEventListener(event, () => this.#playing());
  }

  /** @param {any} clip its document @param {string} view @param {HTMLElement} judging what verdicts are given with */
  async show(clip, view, judging) {
    this.player.pause();
    this.player.currentTime = 0;
    this.clip = clip;
    this.other = "";
    this.#place.replaceChildren(this.#head(), clip.failed ? this.#failure(clip.failed) : this.#heard(), ...this.#told(), judging);
    this.#place.hidden = false;
    if (!clip.failed) this.#makeWave();
    await this.choose(view);
  }

  /** Hear and see the original or a view, at the same place. @param {string} view */
  async choose(view) {
    const clip = this.clip;
    if (!clip) return;
    const found = view === ORIGINAL ? null : clip.views.find((each) => String(each.view) === view);
    if (view !== ORIGINAL && !found) view = ORIGINAL;
    if (view !== this.view || !this.other) this.other = view === ORIGINAL ? this.other : ORIGINAL;
    if (view !== ORIGINAL) this.#parts.last = view;
    this.view = view;
    for (const button of this.#parts.views?.children ?? []) button.setAttribute("aria-pressed", button.dataset.view === view);
    this.#parts.answers?.replaceChildren(...this.#answers(found));
    this.dispatchEvent(new CustomEvent("chosen", { detail: view }));
    if (clip.failed) return;
    this.#parts.draw.replaceChildren(...this.#draw(found));
    try {
      const original = await this.#library.sound(clip.clip, ORIGINAL);
      const sound = view === ORIGINAL ? original : await this.#library.sound(clip.clip, view);
      if (clip !== this.clip || view !== this.view) return;
      this.#parts.trouble.replaceChildren();
      this.#sees(sound, original, found);
      this.player.use(sound.buffer);
    } catch (error) {
      if (clip !== this.clip || view !== this.view) return;
      this.player.pause();
      this.player.sound = null;
      this.#parts.stack.classList.add("silent");
      this.#parts.trouble.replaceChildren(`It cannot be heard: ${error.message}`);
    }
  }

  /** From the original to the last view and back, without losing the place. */
  swap() {
    const view = this.#parts.last ?? String(this.clip?.views[0]?.view ?? "");
    if (view) this.choose(this.view === ORIGINAL ? view : ORIGINAL);
  }

  async toggle() {
    if (!this.player.paused) return this.player.pause();
    await this.player.play();
  }

  /** Begin anew at the end, or no longer. */
  repeat() {
    this.player.loop = !this.player.loop;
    this.player.use(this.player.sound);
    this.#parts.loop.setAttribute("aria-pressed", this.player.loop);
  }

  /** Colours have changed. */
  recolour() {
    this.#wave?.setOptions(colours());
  }

  close() {
    this.player.pause();
    this.#place.hidden = true;
    this.clip = null;
  }

  #head() {
    const clip = this.clip, [file, folder] = fileAndFolder(clip.path);
    const where = `${seconds(clip.start_s)} to ${seconds(clip.start_s + clip.length_s)} of its file`;
    return el("header", { class: "clip-head" },
      el("div", { class: "title" },
        el("h2", { tabindex: "-1", id: "clip-title" }, file),
        el("p", { class: "soft" }, folder && el("span", { class: "folder" }, folder), ` clip ${clip.clip}, ${where}`)),
      this.#against());
  }

  /** The label of the clip against what the teachers say. */
  #against() {
    const { label, mean } = this.clip;
    const says = mean.slice(0, 3).map((each) => `${each.class} ${share(each.probability)}`).join(", ");
    return el("dl", { class: "against" },
      label !== null && el("div", {}, el("dt", {}, "Label"), el("dd", {}, el("strong", {}, label), " ", el("span", { class: "soft" }, this.#ofLabel()))),
      el("div", {}, el("dt", {}, "Teachers"), el("dd", {}, says || "nothing")));
  }

  /** What the teachers say of the label. */
  #ofLabel() {
    const names = new Map(this.#store.classes.map((name) => [plain(name), name]));
    const said = String(this.clip.label).split(/[;|]|,(?! )/).map((each) => names.get(plain(each))).filter((each) => each !== undefined);
    if (!said.length) return "is no class of the teachers";
    return said.map((name) => {
      const at = this.clip.mean.findIndex((each) => each.class === name);
      const whose = said.length > 1 ? `${name}: ` : "";
      return at < 0 ? `${whose}not among their first ${this.clip.mean.length}` : `${whose}they give it ${share(this.clip.mean[at].probability)}, place ${at + 1}`;
    }).join("; ");
  }

  #failure(reason) {
    this.#parts = {};
    return el("p", { class: "trouble" }, `The teachers have not heard this clip: ${reason}`);
  }

  #heard() {
    const parts = (this.#parts = /** @type {any} */ ({}));
    const rate = this.#store.sample_rate, length = this.#store.clip_seconds;
    parts.play = el("button", { type: "button", class: "primary toggle", onclick: () => this.toggle() });
    parts.time = el("output", { class: "clock", "aria-label": "Place" });
    parts.seek = el("input", {
      type: "range", min: 0, max: length, step: 0.01, value: 0, "aria-label": "Place in seconds",
      oninput: () => (this.player.currentTime = Number(parts.seek.value)),
    });
    parts.swap = el("button", { type: "button", onclick: () => this.swap(), "aria-keyshortcuts": "b" }, "A/B");
    parts.loop = el("button", { type: "button", "aria-pressed": this.player.loop, "aria-label": "Repeat", onclick: () => this.repeat() }, icon("loop"));
    parts.views = el("div", { class: "views", role: "group", "aria-label": "Original and views" },
      this.#viewButton(ORIGINAL, "Original"), ...this.clip.views.map((each) => this.#viewButton(String(each.view), `${each.view}`)));
    parts.wave = el("div", { class: "wave" });
    parts.canvas = el("canvas", { role: "img" });
    parts.boxes = el("div", { class: "boxes" });
    parts.cursor = el("div", { class: "cursor" });
    parts.mel = el("div", { class: "mel", onpointerdown: (event) => this.#seekTo(event), onpointermove: (event) => event.buttons && this.#seekTo(event) }, parts.canvas, parts.boxes);
    parts.stack = el("div", { class: "stack" }, parts.wave, parts.mel, parts.cursor);
    parts.trouble = el("p", { class: "trouble", role: "alert" });
    parts.draw = el("dl", { class: "draw" });
    const hertz = HERTZ.filter((each) => each <= rate / 2 && (each === 0 || heightOf(each, rate) > 0.05)).map((each) =>
      el("span", { style: { bottom: `${100 * heightOf(each, rate)}%` } }, each.toLocaleString("en")));
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60].find((each) => length / each <= 8) ?? 120;
    const ticks = Array.from({ length: Math.floor(length / step + 1e-6) + 1 }, (_, n) =>
      el("span", { style: { left: `${(100 * n * step) / length}%` } }, `${Number((n * step).toFixed(2))}${n === 0 ? " s" : ""}`));
    const heard = el("section", { class: "panel heard", "aria-label": "Sound" },
      el("div", { class: "transport" }, parts.play, parts.time, parts.seek, parts.swap, parts.loop),
      parts.views,
      el("div", { class: "plot" },
        el("div", { class: "hertz", "aria-hidden": "true" }, el("b", {}, "Hz"), ...hertz), parts.stack,
        el("div", { class: "ticks", "aria-hidden": "true" }, ...ticks)),
      parts.trouble,
      parts.draw,
      this.#provider.offline && el("p", { class: "soft small" }, "This file holds Opus, which sounds alike but is not the exact samples that the teachers heard; logitstore serve plays those."));
    this.#playing();
    return heard;
  }

  /** @param {string} view @param {string} name */
  #viewButton(view, name) {
    const silent = this.#provider.offline && !this.#provider.holds(this.clip.clip, view);
    return el("button", {
      type: "button", "data-view": view, "aria-pressed": false, class: silent && "silent", title: silent && "this file does not hold its sound",
      "aria-label": view === ORIGINAL ? null : `View ${name}`, onclick: () => this.choose(view),
    }, name);
  }

  #makeWave() {
    this.#wave?.destroy();
    const place = el("div"); // not in the page yet: its style is moved to where the content security policy lets it be
    this.#wave = WaveSurfer.create({ container: place, media: this.player, height: 72, cursorWidth: 0, dragToSeek: true, ...colours() });
    const { shadowRoot } = place.firstElementChild, style = shadowRoot.querySelector("style"), sheet = new CSSStyleSheet();
    sheet.replaceSync(style.textContent);
    style.remove();
    shadowRoot.adoptedStyleSheets = [sheet];
    this.#parts.wave.replaceChildren(place);
  }

  #sees(sound, original, view) {
    const parts = this.#parts, samples = sound.buffer.getChannelData(0);
    const loudest = Math.max(peak(samples), peak(original.buffer.getChannelData(0)), 1e-6);
    this.#wave.setOptions({ barHeight: 1 / loudest });
    this.#wave.load("", [samples], sound.buffer.duration);
    paint(parts.canvas, sound.picture, original.picture.loudest);
    const boxes = view?.boxes ?? [];
    const hides = boxes.map(hidden).join(" and ");
    const whose = view ? `view ${view.view}` : "the original";
    parts.canvas.setAttribute("aria-label", `Log-mel picture of ${whose}${hides ? `; hidden from the teachers: ${hides}` : ""}`);
    parts.boxes.replaceChildren(...boxes.map((box) =>
      el("div", { class: `box ${box.kind === "time" ? "time" : "frequency"}`, title: `hidden: ${hidden(box)}`, style: {
        left: `${100 * box.left}%`, top: `${100 * box.top}%`, width: `${100 * box.width}%`, height: `${100 * box.height}%`,
      } })));
    parts.stack.classList.remove("silent");
  }

  /** The draw of a view in plain units. */
  #draw(view) {
    if (!view) return [el("div", {}, el("dt", {}, "Original"), el("dd", {}, "as it is in its file, nothing drawn"))];
    const drawn = inUnits(view.parameters, this.#store.sample_rate, view.boxes);
    return drawn.length ? drawn.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))) : [el("div", {}, el("dt", {}, "Draw"), el("dd", {}, "nothing"))];
  }

  #told() {
    const clip = this.clip, told = [];
    if (!clip.failed) {
      this.#parts.answers = el("section", { class: "panel", "aria-label": "What the teachers said" });
      told.push(this.#parts.answers);
    }
    const facts = (title, pairs) => pairs.length > 0 && el("section", { class: `panel of-${title.toLowerCase()}` }, el("h3", {}, title),
      el("dl", { class: "facts" }, ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
    const titles = new Map(this.#store.measures.map((each) => [each.name, each.title]));
    told.push(el("div", { class: "side" },
      facts("Columns", Object.entries(clip.columns).map(([name, value]) => [name, String(value)])),
      facts("Measures", Object.entries(clip.measures ?? {}).map(([name, value]) => [titles.get(name) ?? name, value === null ? "none" : number(value)])),
      facts("Verdicts", (clip.verdicts ?? []).map((each) => [each.person ?? "you", [each.verdict, each.label && `it is ${each.label}`, each.note].filter(Boolean).join(", ")]))));
    return told;
  }

  /** Bars of the ensemble, of its members, and of every view. @param {any} view null: the mean over views */
  #answers(view) {
    const clip = this.clip, members = this.#store.members;
    const said = view ? view.classes : clip.mean.map((each) => ({ ...each, members: memberMeans(clip.views, each.class, members) }));
    const means = new Map(clip.mean.map((each) => [each.class, each.probability]));
    const byView = clip.views.map((each) => [each.view, new Map(each.classes.map(({ class: name, probability }) => [name, probability]))]);
    const title = view ? `What the teachers said of view ${view.view}` : `What the teachers said, mean over ${clip.views.length} views`;
    const rows = said.slice(0, SHOWN_CLASSES).map((each) => {
      const own = byView.map(([number, values]) => [number, values.get(each.class) ?? null]);
      const values = own.map(([, value]) => value ?? 0), low = Math.min(...values), high = Math.max(...values);
      const marks = members.map((member) => [member, each.members?.[member] ?? null]);
      return el("tr", {},
        el("th", { scope: "row" }, each.class),
        el("td", { class: "bars" },
          el("div", { class: "bar" }, el("i", { style: { width: percent(each.probability) } }),
            view && means.has(each.class) && el("b", { title: `mean over views: ${share(means.get(each.class))}`, style: { left: percent(means.get(each.class)) } })),
          ...marks.map(([member, value]) => el("div", { class: "bar member", title: `${member}: ${value === null ? "not kept" : share(value)}` },
            value !== null && el("i", { style: { width: percent(value) } })))),
        el("td", { class: "digits" }, share(each.probability),
          marks.length > 0 && spoken(`; ${marks.map(([member, value]) => `${member} ${value === null ? "not kept" : share(value)}`).join(", ")}`)),
        el("td", { class: "strip" }, spoken(`${share(low)} to ${share(high)}`),
          ...own.map(([number, value]) => el("i", { class: view?.view === number && "chosen", title: `view ${number}: ${value === null ? "not among its first" : share(value)}`, style: { height: `max(2px, ${percent(value ?? 0)})` } }))));
    });
    return [
      el("h3", {}, title),
      el("table", { class: "answers" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Class"), el("th", { scope: "col" }, "Probability"), el("td"), el("th", { scope: "col" }, "By view"))),
        el("tbody", {}, ...rows)),
      el("p", { class: "soft small" }, [view && "The line in a bar is the mean over views.", members.length > 0 && `Thin bars are the members, from above: ${members.join(", ")}.`].filter(Boolean).join(" ")),
    ];
  }

  #follow() {
    const at = this.player.currentTime, length = this.#store.clip_seconds, parts = this.#parts;
    if (!parts.cursor) return;
    parts.cursor.style.left = `${(100 * at) / length}%`;
    parts.time.textContent = `${at.toFixed(2)} / ${length.toFixed(2)} s`;
    parts.seek.value = at;
    parts.seek.setAttribute("aria-valuetext", seconds(at));
  }

  #playing() {
    const { play } = this.#parts, paused = this.player.paused;
    if (!play) return;
    play.replaceChildren(icon(paused ? "play" : "pause"), paused ? "Play" : "Pause");
    this.#follow();
  }

  #seekTo(event) {
    const { left, width } = this.#parts.mel.getBoundingClientRect();
    this.player.currentTime = ((event.clientX - left) / width) * this.#store.clip_seconds;
  }
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  return { waveColor: style.getPropertyValue("--bar").trim(), progressColor: style.getPropertyValue("--accent").trim() };
}

/** @param {Float32Array} samples */
function peak(samples) {
  let most = 0;
  for (const each of samples) most = Math.max(most, Math.abs(each));
  return most;
}

/** What a box hides, in s or Hz. @param {any} box */
function hidden(box) {
  return box.kind === "time" ? `${box.start.toFixed(2)} to ${box.stop.toFixed(2)} s` : `${Math.round(box.start).toLocaleString("en")} to ${Math.round(box.stop).toLocaleString("en")} Hz`;
}

/** A name without what writers differ in. @param {string} name */
function plain(name) {
  return name.trim().toLowerCase().replaceAll(/[_\s]+/g, " ");
}

/** @param {number} value */
function percent(value) {
  return `${(100 * value).toFixed(1)}%`;
}

/** What each member said of a class, in the mean over the views that hold it. */
function memberMeans(views, name, members) {
  const said = views.map((view) => view.classes.find((each) => each.class === name)?.members).filter(Boolean);
  return Object.fromEntries(members.map((member) => {
    const values = said.map((each) => each[member]).filter((each) => each !== null && each !== undefined);
    return [member, values.length ? values.reduce((a, b) => a + b, 0) / values.length : null];
  }));
}

/**
 * Names and values of a draw for people: seconds and Hz, spans as one, and what was not drawn left out.
 * @param {Object<string, any>} parameters @param {number} rate @param {any[]} boxes @returns {[string, string][]}
 */
export function inUnits(parameters, rate, boxes) {
  const spans = /_(start|end|low|high)_/, found = boxes.map((box) => [box.kind === "time" ? "hidden time" : "hidden frequencies", hidden(box)]);
  for (const [name, value] of Object.entries(parameters)) {
    if (value === null || (boxes.length && /^(time|freq)_/.test(name) && spans.test(name)) || /_step$/.test(name)) continue;
    const [, what, unit] = name.match(/^(.*?)_(samples|ms|s|hz|db)$/) ?? [null, name, ""];
    const plainName = what.replaceAll("_", " ");
    if (typeof value !== "number") found.push([plainName, String(value)]);
    else if (unit === "samples") found.push([plainName, `${(value / rate).toFixed(3)} s`]);
    else if (unit === "ms") found.push([plainName, `${(value / 1000).toFixed(2)} s`]);
    else found.push([plainName, `${number(value)}${{ s: " s", hz: " Hz", db: " dB" }[unit] ?? ""}`]);
  }
  return found;
}
