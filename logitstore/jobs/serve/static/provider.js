/**
 * Where the page has its answers from: the server of `logitstore serve`, or the data within one offline file. Both answer
 * the same calls; a failed one throws an Error whose message is one line, with the HTTP status where there is one.
 * @typedef {{verdict: string, note: string, label: string|null, person?: string}} Verdict
 * @typedef {{clip: number, path: string, start_s: number, length_s: number, label: string|null, top: [string, number][],
 *   measures: Object<string, number|null>, failed: string|null, verdict: Verdict|null}} Row
 * @typedef {{right: number, wrong: number, unsure: number}} Counts
 */

export class Failure extends Error {
  /** @param {string} message @param {number} [status] 0: no answer at all */
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export class ServerProvider {
  offline = false;

  store() {
    return this.#asked("/api/store");
  }

  /** @param {URLSearchParams} query */
  search(query) {
    return this.#asked(`/api/search?${query}`);
  }

  /** @param {number} number */
  clip(number) {
    return this.#asked(`/api/clip/${number}`);
  }

  /** The file of a sound. @param {number} clip @param {string} view "original" or its number */
  async audio(clip, view) {
    return (await this.#fetched(`/audio/${clip}/${view}.wav`)).arrayBuffer();
  }

  /** @param {number} clip @param {string|null} verdict @param {string} note @param {string|null} label */
  judge(clip, verdict, note, label) {
    return this.#posted("/api/verdict", { clip, verdict, note, label });
  }

  undo() {
    return this.#posted("/api/undo", {});
  }

  /** @returns {Promise<{counts: Counts, file: string}>} */
  verdicts() {
    return this.#asked("/api/verdicts");
  }

  /** @param {string} path @param {any} document */
  async #posted(path, document) {
    const body = JSON.stringify(document);
    return (await this.#fetched(path, { method: "POST", headers: { "content-type": "application/json" }, body })).json();
  }

  /** @param {string} path */
  async #asked(path) {
    return (await this.#fetched(path)).json();
  }

  /** @param {string} path @param {RequestInit} [options] */
  async #fetched(path, options) {
    let answer;
    try {
      answer = await fetch(path, options);
    } catch {
      throw new Failure("the server does not answer; is logitstore serve still running?");
    }
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({}));
    throw new Failure(said.error ?? `the server answered ${answer.status} ${answer.statusText}`, answer.status);
  }
}

const CSV_COLUMNS = ["path", "start", "length", "rate", "verdict", "label", "note", "person", "at"];

const MARKED = new Set(["path", "label", "note", "person"]);

export class OfflineProvider {
  offline = true;
  #data;
  #audio;
  #key;

  /** @param {any} data what the file says of its clips @param {Object<string, string>} audio their sounds, as Base64 */
  constructor(data, audio) {
    this.#data = data;
    this.#audio = audio;
    this.#key = `logitstore verdicts ${data.id}`;
  }

  /** Read the data out of the page. */
  static async open() {
    const packed = bytes(JSON.parse(document.getElementById("data").textContent));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const audio = JSON.parse(document.getElementById("audio").textContent);
    return new OfflineProvider(await new Response(stream).json(), audio);
  }

  async store() {
    return this.#data.store;
  }

  /** @param {URLSearchParams} query */
  async search(query) {
    const started = performance.now();
    const asked = (name) => query.get(name) ?? "";
    const judged = this.#latest();
    const text = asked("text").toLowerCase(), ofClass = asked("class"), verdict = asked("verdict");
    let rows = this.#data.rows.map((row) => ({ ...row, verdict: judged.get(row.clip) ?? null }));
    if (ofClass && !this.#data.store.classes.includes(ofClass)) throw new Failure(`no class is named ${ofClass}`, 400);
    if (ofClass) rows = rows.filter((row) => this.#mean(row.clip, ofClass) > 0);
    if (text) rows = rows.filter((row) => this.#texts(row).some((each) => each.toLowerCase().includes(text)));
    if (verdict === "none") rows = rows.filter((row) => !row.verdict);
    else if (verdict === "any") rows = rows.filter((row) => row.verdict);
    else if (verdict) rows = rows.filter((row) => row.verdict?.verdict === verdict);
    if (asked("question")) {
      const order = new Map(this.#data.rankings[asked("question")].map((clip, place) => [clip, place]));
      rows = rows.filter((row) => order.has(row.clip)).sort((a, b) => order.get(a.clip) - order.get(b.clip));
    }
    const measure = this.#data.store.measures.find((each) => each.name === asked("sort"));
    const by = asked("sort") || (ofClass && !asked("question") ? "probability" : "");
    const value = (row) =>
      by === "path" ? row.path : by === "clip" ? row.clip : by === "probability" ? this.#mean(row.clip, ofClass) : row.measures[by] ?? null;
    if (by) {
      const usual = measure ? measure.descending : by === "probability";
      const sign = (asked("descending") === "" ? usual : asked("descending") === "1") ? -1 : 1;
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        return x === null || y === null ? (x === null) - (y === null) : sign * (x < y ? -1 : x > y ? 1 : 0);
      });
    }
    const offset = Number(asked("offset")), limit = Number(asked("limit") || 50);
    return { total: rows.length, rows: rows.slice(offset, offset + limit), sql: "", seconds: (performance.now() - started) / 1000 };
  }

  /** @param {number} number */
  async clip(number) {
    const clip = this.#data.clips[number];
    if (!clip) throw new Failure(`clip ${number} is not in this file; it holds ${this.#data.rows.length} of the store's clips`, 404);
    const verdict = this.#latest().get(Number(number)) ?? null;
    return { ...clip, verdict, verdicts: verdict ? [verdict] : [] };
  }

  /** @param {number} clip @param {string} view */
  async audio(clip, view) {
    const found = this.#audio[`${clip}/${view}`];
    if (!found) throw new Failure(`this file does not hold the sound of ${view === "original" ? "this clip" : `view ${view}`}`, 404);
    return bytes(found).buffer;
  }

  /** Whether the file holds a sound. @param {number} clip @param {string} view */
  holds(clip, view) {
    return `${clip}/${view}` in this.#audio;
  }

  async judge(clip, verdict, note, label) {
    const { path, start, length, rate } = this.#data.clips[clip].key;
    const at = new Date().toISOString();
    const line = { path, start, length, rate, verdict: verdict ?? "", label: label ?? "", note, person: this.person, at };
    this.#keep([...this.#lines(), { ...line, clip }]);
    return { verdict: this.#latest().get(clip) ?? null, undone: false, counts: this.#counts() };
  }

  async undo() {
    const lines = this.#lines(), last = lines.pop();
    if (!last) throw new Failure("there is no verdict to take back", 400);
    this.#keep(lines);
    return { clip: last.clip, verdict: this.#latest().get(last.clip) ?? null, counts: this.#counts() };
  }

  async verdicts() {
    return { counts: this.#counts(), file: "verdicts.csv" };
  }

  get person() {
    return localStorage.getItem("logitstore person") || "listener";
  }

  set person(name) {
    localStorage.setItem("logitstore person", name.trim());
  }

  /** Everything judged here as the text of verdicts.csv. */
  csv() {
    // as logitstore writes it: a text that a spreadsheet would run as a formula has an apostrophe before it
    const runs = (text) => /^([\s"'\ufeff\u200b]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])/.test(text) && !/^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i.test(text);
    const marked = (text) => (text.startsWith("'") || runs(text) ? `'${text}` : text);
    const cell = (text) => (/[",\r\n\v\f\x1c-\x1e\x85\u2028\u2029]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = this.#lines().map((line) => CSV_COLUMNS.map((name) => cell(MARKED.has(name) ? marked(line[name]) : String(line[name]))).join(","));
    return [CSV_COLUMNS.join(","), ...lines].map((line) => `${line}\n`).join("");
  }

  #texts(row) {
    return [row.path, ...Object.values(this.#data.clips[row.clip].columns), ...row.top.map(([name]) => name)].map(String);
  }

  #mean(clip, name) {
    return this.#data.clips[clip].mean.find((each) => each.class === name)?.probability ?? 0;
  }

  #lines() {
    return JSON.parse(localStorage.getItem(this.#key) ?? "[]");
  }

  #keep(lines) {
    try {
      localStorage.setItem(this.#key, JSON.stringify(lines));
    } catch (error) {
      throw new Failure(`this browser does not keep the verdict (${error.message})`);
    }
  }

  #latest() {
    const found = new Map();
    for (const { clip, verdict, note, label, person } of this.#lines()) {
      if (verdict) found.set(clip, { verdict, note, label: label || null, person });
      else found.delete(clip);
    }
    return found;
  }

  #counts() {
    const counts = { right: 0, wrong: 0, unsure: 0 };
    for (const { verdict } of this.#latest().values()) counts[verdict] += 1;
    return counts;
  }
}

/** @param {string} text Base64 */
function bytes(text) {
  return Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
}
