/** Elements, numbers and units as the page shows them. Texts of the store are only ever set as text. */

/**
 * Make an element.
 * @param {string} tag
 * @param {Object<string, any>} [properties] attributes; `on…` are listeners, `style` an object, `class` its classes
 * @param {...(Node|string|number|null|undefined|false)} children
 * @returns {any}
 */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) made.style.setProperty(key, each);
    else if (name === "value" || name === "checked" || name === "disabled") made[name] = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((each) => each !== null && each !== undefined && each !== false).map(asNode));
  return made;
}

/** @param {Node|string|number|true} each */
function asNode(each) {
  return each instanceof Node ? each : document.createTextNode(String(each));
}

/** One of the drawings of index.html. @param {string} name */
export function icon(name) {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  drawing.setAttribute("class", `icon ${name}`);
  drawing.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  drawing.append(use);
  return drawing;
}

/** A text for screen readers alone. @param {string} text */
export function spoken(text) {
  return el("span", { class: "hidden-text" }, text);
}

/** @param {string} id @returns {any} */
export function byId(id) {
  return document.getElementById(id);
}

/** A probability in two digits. @param {number} value */
export function share(value) {
  return value >= 0.005 || value === 0 ? value.toFixed(2) : "<0.01";
}

/** A number with few digits. @param {number} value */
export function number(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

/** Seconds as a player shows them. @param {number} value */
export function seconds(value) {
  return `${value.toFixed(2)} s`;
}

/** A path as its file and its folder. @param {string} path @returns {[string, string]} */
export function fileAndFolder(path) {
  const cut = path.lastIndexOf("/") + 1;
  return [path.slice(cut), path.slice(0, cut)];
}
