// What all pages share: reading the data, making elements, lists with pages, colours. Text is only ever set as text.
"use strict";

const $ = (id) => document.getElementById(id);

/** An element: h("button", {class: "x", onclick: f}, "text", child, ...). */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** The page's data: base64 of gzipped JSON. */
async function readData() {
  const stream = new Blob([bytesOf($("data").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const HALF = new Float32Array(65536); // every float16, by its bits
for (let bits = 0; bits < 65536; bits++) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  HALF[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

/** Numbers that were packed as little-endian float16 in base64; null stays null. */
function halves(packed) {
  return packed == null ? null : Float32Array.from(new Uint16Array(bytesOf(packed).buffer), (bits) => HALF[bits]);
}

/** A number for people, without trailing zeros. */
function show(value, digits = 4) {
  return value === null || value === undefined || Number.isNaN(value) ? "–" : String(Number(value.toPrecision(digits)));
}

/** A list that shows `size` items at a time, with buttons; `draw(item)` makes one item's element. */
class Pager {
  constructor(list, bar, size, draw) {
    Object.assign(this, {list, bar, size, draw, items: [], page: 0});
  }

  set(items) {
    this.items = items;
    this.turn(0);
  }

  turn(page) {
    this.page = page;
    const first = page * this.size, shown = this.items.slice(first, first + this.size);
    this.list.replaceChildren(...shown.map(this.draw));
    const last = Math.max(0, Math.ceil(this.items.length / this.size) - 1);
    const button = (label, to, off) => h("button", {type: "button", disabled: off, onclick: () => {
      this.turn(to);
      // the pressed button is gone; its successor takes the focus, or the other one at an end
      const again = [...this.bar.querySelectorAll("button")].filter((one) => !one.disabled);
      (again.find((one) => one.textContent === label) ?? again[0])?.focus();
    }}, label);
    this.bar.replaceChildren(
      button("‹ previous", page - 1, page === 0),
      h("span", {}, shown.length ? ` ${first + 1}–${first + shown.length} of ${this.items.length} ` : " none "),
      button("next ›", page + 1, page >= last),
    );
  }
}

/** Text as it is shown: characters that would be invisible or turn the text around are spelled out. */
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g,
    (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** The beginning of a text, for lists. */
const oneLine = (text) => visible(text.slice(0, 120).replace(/\s+/g, " "));

/** Mark the one item of a list that is shown. */
function markCurrent(items, isCurrent) {
  for (const item of items) {
    if (isCurrent(item)) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
  }
}

/** On a narrow page, what was chosen stands below the list. */
function reveal(place) {
  if (window.innerWidth <= 760) place.scrollIntoView();
}

function fillSelect(select, options) {
  select.append(...options.map(([value, label]) => h("option", {value}, label)));
}

/** Run the page: `start(data)`; a failure is shown on the page, not only in the console. */
async function run(start) {
  try {
    await start(await readData());
    document.body.dataset.ready = "yes";
  } catch (error) {
    $("failure").textContent = `This page could not be shown: ${error.message}. A current browser is needed.`;
    $("failure").hidden = false;
    throw error;
  }
}
