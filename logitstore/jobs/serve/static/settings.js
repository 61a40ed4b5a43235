/** What the page keeps of a person's ways in the browser's storage: theme, going on, playing at once, keys. */

import { el } from "./dom.js";

const BOXES = {
  next: ["Next clip after a verdict", true],
  play: ["Play a clip when it opens", false],
  keys: ["Shortcuts of a single key", true],
};

export class Settings extends EventTarget {
  #values = /** @type {any} */ ({});

  constructor() {
    super();
    try {
      this.#values = JSON.parse(localStorage.getItem("logitstore settings") ?? "{}");
    } catch {
      // a browser without storage: settings last as long as the page
    }
  }

  /** @param {string} name */
  get(name) {
    return this.#values[name] ?? BOXES[name]?.[1] ?? "";
  }

  /** @param {string} name @param {any} value */
  set(name, value) {
    this.#values[name] = value;
    try {
      localStorage.setItem("logitstore settings", JSON.stringify(this.#values));
    } catch {
      // as above
    }
    this.dispatchEvent(new CustomEvent("changed", { detail: name }));
  }

  /** A box to tick for a setting, which follows it wherever it is changed. @param {string} name */
  box(name) {
    const box = el("input", { type: "checkbox", checked: this.get(name), onchange: () => this.set(name, box.checked) });
    this.addEventListener("changed", () => (box.checked = this.get(name)));
    return el("label", { class: "plain" }, box, ` ${BOXES[name][0]}`);
  }
}
