// Shared by all pages: reads the data, creates elements, pages through lists. Text is inserted as text nodes, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);

/** Create an element: h("button", {class: "x", onclick: f}, "text", child, ...). */
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

/** Decode the page's data: base64 of gzipped JSON. */
async function readData() {
  const stream = new Blob([bytesOf($("data").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const HALF = new Float32Array(65536); // float16 values indexed by their bits
for (let bits = 0; bits < 65536; bits++) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  HALF[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

/** Unpack little-endian float16 numbers in base64; null stays null. */
function halves(packed) {
  return packed == null ? null : Float32Array.from(new Uint16Array(bytesOf(packed).buffer), (bits) => HALF[bits]);
}

/** Format a number without trailing zeros. */
function show(value, digits = 4) {
  return value === null || value === undefined || Number.isNaN(value) ? "–" : String(Number(value.toPrecision(digits)));
}

/** List that shows `size` items per page, with buttons; `draw(item)` creates the element of an item. */
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
    const first = page * this.size, visibleItems = this.items.slice(first, first + this.size);
    this.list.replaceChildren(...visibleItems.map(this.draw));
    const last = Math.max(0, Math.ceil(this.items.length / this.size) - 1);
    const button = (label, to, off) => h("button", {type: "button", disabled: off, onclick: () => {
      this.turn(to);
      // The pressed button was replaced: focus its replacement, or the other button at an end of the list.
      const buttons = [...this.bar.querySelectorAll("button")].filter((button) => !button.disabled);
      (buttons.find((button) => button.textContent === label) ?? buttons[0])?.focus();
    }}, label);
    this.bar.replaceChildren(
      button("‹ previous", page - 1, page === 0),
      h("span", {}, visibleItems.length ? ` ${first + 1}–${first + visibleItems.length} of ${this.items.length} ` : " none "),
      button("next ›", page + 1, page >= last),
    );
  }
}

/** Text with invisible and direction-changing characters replaced by their code points. */
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g,
    (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** First characters of a text on one line, for lists. */
const oneLine = (text) => visible(text.slice(0, 120).replace(/\s+/g, " "));

/** Mark the current item of a list. */
function markCurrent(items, isCurrent) {
  for (const item of items) {
    if (isCurrent(item)) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
  }
}

/** Scroll to an element on narrow pages, where details are below the list. */
function reveal(element) {
  if (window.innerWidth <= 760) element.scrollIntoView();
}

function fillSelect(select, options) {
  select.append(...options.map(([value, label]) => h("option", {value}, label)));
}

/** Call `start(data)`; show an error on the page as well as in the console. */
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
