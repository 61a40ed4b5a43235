/** The bar that verdicts are given with: right, wrong, unsure, the right label, a note, undo, and whether to go on. */

import { byId, el, icon } from "./dom.js";

export const VERDICTS = /** @type {const} */ ([["right", "Right", "r"], ["wrong", "Wrong", "w"], ["unsure", "Unsure", "u"]]);

export class JudgingBar extends EventTarget {
  #buttons = new Map();
  #verdict = /** @type {string|null} */ (null);

  /** @param {any} store @param {import("./settings.js").Settings} settings */
  constructor(store, settings) {
    super();
    for (const [name, title, key] of VERDICTS) {
      this.#buttons.set(name, el("button", {
        type: "button", class: `judge ${name}`, "aria-pressed": false, "aria-keyshortcuts": key, disabled: store.read_only,
        onclick: () => this.#given(this.#verdict === name ? null : name),
      }, icon(name), title, el("kbd", {}, key)));
    }
    const saved = (event) => event.key === "Enter" && (event.preventDefault(), this.#given(this.#verdict));
    this.label = el("input", { list: "classes", "aria-label": "The right label", placeholder: "right label", disabled: store.read_only, onkeydown: saved });
    this.note = el("input", { "aria-label": "Note", placeholder: "note (n)", maxlength: 1000, disabled: store.read_only, onkeydown: saved });
    this.undo = el("button", { type: "button", class: "undo", "aria-label": "Undo the last verdict", "aria-keyshortcuts": "z", disabled: store.read_only, onclick: () => this.dispatchEvent(new Event("undo")) }, icon("undo"), el("span", {}, "Undo"), el("kbd", {}, "z"));
    this.element = el("section", { class: "judging", "aria-label": "Verdict" },
      el("div", { class: "verdicts", role: "group", "aria-label": "Is the label right?" }, ...this.#buttons.values(), this.undo),
      el("div", { class: "more" }, this.label, this.note, settings.box("next")),
      store.read_only && el("p", { class: "soft small" }, "Verdicts cannot be saved here: the server is read-only."));
  }

  /** @param {import("./provider.js").Verdict|null} verdict what holds of the clip now */
  show(verdict) {
    this.#verdict = verdict?.verdict ?? null;
    this.label.value = verdict?.label ?? "";
    this.note.value = verdict?.note ?? "";
    for (const [name, button] of this.#buttons) button.setAttribute("aria-pressed", name === this.#verdict);
  }

  /** As a key does. @param {string} name */
  give(name) {
    this.#buttons.get(name).click();
  }

  #given(verdict) {
    if (verdict === null && this.#verdict === null) {
      byId("told").textContent = "Say right, wrong or unsure too; the note is saved with it";
      this.#buttons.get("right").focus();
      return;
    }
    const label = this.label.value.trim() || null;
    this.dispatchEvent(new CustomEvent("given", { detail: { verdict, note: this.note.value.trim(), label } }));
  }
}
