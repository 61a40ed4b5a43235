/** The list of what a search found, page by page, whatever their number; and which clip of it is the open one. */

import { byId, el, fileAndFolder, icon, number, share, spoken } from "./dom.js";

const PAGE = 50;

export class Results extends EventTarget {
  /** @type {import("./provider.js").Row[]} */
  rows = [];
  total = 0;
  offset = 0;
  /** Position of the open clip among the rows, -1 for none. */
  at = -1;
  #provider;
  #store;
  #query = new URLSearchParams();
  #asked = 0;

  /** @param {any} provider @param {any} store */
  constructor(provider, store) {
    super();
    this.#provider = provider;
    this.#store = store;
    byId("page-before").addEventListener("click", () => this.page(-1));
    byId("page-after").addEventListener("click", () => this.page(1));
  }

  /** Search. @param {URLSearchParams} query @param {number} [offset] @returns whether it went well and was the latest */
  async search(query, offset = 0) {
    const asked = ++this.#asked;
    this.#query = query;
    byId("results").setAttribute("aria-busy", "true");
    try {
      const whole = new URLSearchParams([...query, ["offset", String(offset)], ["limit", String(PAGE)]]);
      const answer = await this.#provider.search(whole);
      if (asked !== this.#asked) return false;
      Object.assign(this, { rows: answer.rows, total: answer.total, offset, at: -1 });
      byId("found").classList.remove("trouble");
      byId("found").removeAttribute("role");
      byId("found").replaceChildren(this.#says(answer));
    } catch (error) {
      if (asked !== this.#asked) return false;
      Object.assign(this, { rows: [], total: 0, offset: 0, at: -1 });
      byId("found").classList.add("trouble");
      byId("found").setAttribute("role", "alert");
      byId("found").replaceChildren(error.message);
    }
    byId("results").removeAttribute("aria-busy");
    this.#list();
    return this.total > 0;
  }

  /** Another page. A filter by verdict finds no longer what was judged meanwhile, so the next page begins earlier. */
  async page(by) {
    const verdict = this.#query.get("verdict");
    const fits = (row) => !verdict || (verdict === "none" ? !row.verdict : verdict === "any" ? row.verdict : row.verdict?.verdict === verdict);
    const offset = by > 0 ? this.offset + this.rows.filter(fits).length : Math.max(0, this.offset - PAGE);
    const well = await this.search(this.#query, offset);
    byId("results").scrollTop = 0;
    return well;
  }

  /** The clip before or after the open one, over the ends of pages; null at the ends. @param {number} by */
  async neighbour(by) {
    const at = this.at < 0 && by < 0 ? 0 : this.at + by;
    if (at >= 0 && at < this.rows.length) return this.rows[at].clip;
    if (by > 0 && this.offset + this.rows.length < this.total && (await this.page(1))) return this.rows[0]?.clip ?? null;
    if (by < 0 && this.offset > 0 && (await this.page(-1))) return this.rows.at(-1)?.clip ?? null;
    return null;
  }

  /** The clip after the open one, if it is on this page: to ask for it early. */
  get following() {
    return this.rows[this.at + 1]?.clip ?? null;
  }

  /** Show which clip is open. @param {number|null} clip */
  mark(clip) {
    this.at = this.rows.findIndex((row) => row.clip === clip);
    [...byId("results").children].forEach((item, place) => {
      const link = item.firstElementChild;
      if (place === this.at) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      if (place === this.at) link.scrollIntoView({ block: "nearest" });
    });
  }

  /** A verdict has changed. @param {number} clip @param {any} verdict */
  judged(clip, verdict) {
    const place = this.rows.findIndex((row) => row.clip === clip);
    if (place < 0) return;
    this.rows[place].verdict = verdict;
    byId("results").children[place].querySelector(".mark").replaceChildren(...mark(verdict));
  }

  #says({ total, seconds, sql }) {
    if (!total) return "No clip fits. Take something out of the search.";
    const end = this.offset + this.rows.length;
    const which = total > this.rows.length ? `${(this.offset + 1).toLocaleString("en")} to ${end.toLocaleString("en")} of ${total.toLocaleString("en")} clips` : `${total.toLocaleString("en")} clip${total > 1 ? "s" : ""}`;
    return el("span", { title: sql || null }, `${which}, in ${seconds.toFixed(seconds < 0.1 ? 3 : 2)} s`);
  }

  #list() {
    const measure = this.#store.measures.find((each) => each.name === this.#query.get("sort"));
    byId("results").replaceChildren(...this.rows.map((row) => el("li", {}, this.#row(row, measure))));
    const pages = this.total > this.rows.length;
    byId("pages").hidden = !pages;
    byId("page-before").disabled = this.offset === 0;
    byId("page-after").disabled = this.offset + this.rows.length >= this.total;
  }

  #row(row, measure) {
    const [file, folder] = fileAndFolder(row.path), value = measure && row.measures[measure.name];
    const open = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.dispatchEvent(new CustomEvent("open", { detail: row.clip }));
    };
    return el("a", { href: `#${new URLSearchParams([...this.#query, ["clip", String(row.clip)]])}`, class: "row", onclick: open },
      el("span", { class: "mark" }, ...mark(row.verdict)),
      el("span", { class: "name" }, el("b", {}, file), " ", el("span", { class: "soft" }, folder)),
      el("span", { class: "says" }, row.label !== null && el("b", {}, row.label), row.label !== null && " ", row.failed ? `failed: ${row.failed}` : row.top.map(([name, value]) => `${name} ${share(value)}`).join(", ")),
      typeof value === "number" && el("span", { class: "value", title: measure.title }, number(value)));
  }
}

function mark(verdict) {
  return verdict ? [icon(verdict.verdict), spoken(`judged ${verdict.verdict}`)] : [];
}
