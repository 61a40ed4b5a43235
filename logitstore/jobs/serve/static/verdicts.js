/**
 * Verdicts on their way: each is sent at once, and one that cannot be saved is kept, shown, and tried again until it is.
 * Those that wait outlive the page: they lie in the browser's storage until the server has them.
 */

import { Failure } from "./provider.js";

const RETRY_MS = 5000;

export class Verdicts extends EventTarget {
  /** @type {{clip: number, verdict: string|null, note: string, label: string|null}[]} */
  waiting = [];
  /** Why the last one was not saved. */
  reason = "";
  /** @type {import("./provider.js").Counts} */
  counts = { right: 0, wrong: 0, unsure: 0 };
  #provider;
  #key;
  #again = 0;
  #sending = /** @type {Promise<void>|null} */ (null);

  /** @param {any} provider @param {string} store what the waiting ones belong to */
  constructor(provider, store) {
    super();
    this.#provider = provider;
    this.#key = `logitstore waiting ${store}`;
    try {
      this.waiting = JSON.parse(localStorage.getItem(this.#key) ?? "[]");
    } catch {
      this.waiting = []; // a browser without storage: they wait in the page alone
    }
  }

  /** Ask how many there are, and send those that wait from another time. */
  async begin() {
    this.counts = (await this.#provider.verdicts()).counts;
    this.#tell();
    await this.#send();
  }

  /**
   * Save one; it counts at once, and `changed` is told when it is saved or not.
   * @param {number} clip @param {string|null} verdict @param {string} note @param {string|null} label
   */
  judge(clip, verdict, note, label) {
    this.#wait([...this.waiting.filter((each) => each.clip !== clip), { clip, verdict, note, label }]);
    return this.#send();
  }

  /** Take the last one back: one that waits, or the last that was saved. @returns what it was for, and what holds now */
  async undo() {
    await this.#sending; // one that is under way may be the server's already
    const last = this.waiting.at(-1);
    if (last) {
      this.#wait(this.waiting.slice(0, -1));
      const { verdict } = await this.#provider.clip(last.clip).catch(() => ({ verdict: null }));
      this.#tell();
      return { clip: last.clip, verdict };
    }
    const done = await this.#provider.undo();
    this.counts = done.counts;
    this.#tell();
    return done;
  }

  /** Try those that wait again. */
  retry() {
    return this.#send();
  }

  /** Send those that wait, unless that is under way: then it takes these along. */
  #send() {
    this.#sending ??= this.#sendAll().finally(() => (this.#sending = null));
    return this.#sending;
  }

  async #sendAll() {
    while (this.waiting.length) {
      const first = this.waiting[0];
      try {
        const { counts } = await this.#provider.judge(first.clip, first.verdict, first.note, first.label);
        this.counts = counts;
        this.reason = "";
        this.#wait(this.waiting.filter((each) => each !== first));
      } catch (error) {
        this.reason = error.message;
        if (error instanceof Failure && error.status === 400) {
          this.#refuse(first);
          continue;
        }
        clearTimeout(this.#again);
        this.#again = setTimeout(() => this.#send(), RETRY_MS);
        break;
      }
    }
    this.#tell();
  }

  /** One that the server will never take: it is dropped, and said so. @param {any} verdict */
  #refuse(verdict) {
    this.#wait(this.waiting.filter((each) => each !== verdict));
    this.dispatchEvent(new CustomEvent("refused", { detail: { ...verdict, reason: this.reason } }));
    this.reason = "";
  }

  #wait(waiting) {
    this.waiting = waiting;
    try {
      localStorage.setItem(this.#key, JSON.stringify(waiting));
    } catch {
      // without storage they wait in the page, which asks before it is left
    }
  }

  #tell() {
    this.dispatchEvent(new Event("changed"));
  }
}
