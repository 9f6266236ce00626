// Pages of `rlfr report` and `rlfr inspect`: rollout browser, coloured tokens, ranked tokens, comparison of two sides.
"use strict";

const FLOAT16_DIGITS = 3; // significant digits of the float16 token values
let DATA, MODES, state;

// -- tokens ------------------------------------------------------------------------------------------------------

/** Colour modes of tokens: label, accessor of a response's values, and whether high or low values are good (blue). */
function modesOf(data) {
  const modes = [
    {id: "flow_reward", label: "flow reward", good: "high", of: (tokens) => tokens.flow_reward},
    {id: "deviation", label: "deviation, mean of layers", good: "low", of: (tokens) => tokens.deviation},
    ...data.layers.map((layer) => (
      {id: `layer_${layer}`, label: `deviation, layer ${layer}`, good: "low", of: (tokens) => tokens.layers?.get(layer)})),
    {id: "entropy", label: "entropy", good: "low", of: (tokens) => tokens.entropy},
    {id: "visual_dependency", label: "visual dependency", good: "high", of: (tokens) => tokens.visual_dependency},
    {id: "token_advantage", label: "advantage", good: "high", of: (tokens) => tokens.token_advantage},
  ];
  return modes.filter((mode) => data.scales[mode.id]);
}

function piecesOf(response) {
  return Array.from(new Uint32Array(bytesOf(response.pieces).buffer), (index) => DATA.vocabulary[index]);
}

/** Unpack the tokens of a response, once. A deviation of exactly 0 means that the token has no partner: no value. */
function tokensOf(response) {
  if (response.tokens) return response.tokens;
  const pieces = piecesOf(response);
  const byLayer = (response.layers ?? []).map((packed) => halves(packed).map((value) => value === 0 ? NaN : value));
  const layers = new Map(DATA.runs[response.run].layers.map((layer, i) => [layer, byLayer[i]]));
  const deviation = byLayer.length
    ? byLayer[0].map((_, i) => byLayer.reduce((sum, values) => sum + values[i], 0) / byLayer.length) : null;
  const advantage = halves(response.token_advantage)
    ?? (response.advantage === null ? null : Float32Array.from(pieces, () => response.advantage));
  const flow = halves(response.flow_reward);
  response.tokens = {pieces, layers, deviation, flow_reward: flow, token_advantage: advantage,
                     entropy: halves(response.entropy), visual_dependency: halves(response.visual_dependency),
                     cut: flow && deviation && beyondTopK(response, deviation, flow)};
  return response.tokens;
}

/** Per token: whether its normalised deviation exceeds the threshold although top-k dropped it (float16 precision). */
function beyondTopK(response, deviation, flow) {
  const valid = deviation.filter((value) => !Number.isNaN(value)), {threshold, two_sided} = DATA.runs[response.run];
  if (threshold === null || response.outcome === "undecided" || !valid.length || !flow.some((value) => value)) return null;
  const low = Math.min(...valid), span = Math.max(...valid) - low;
  return Array.from(deviation, (value, i) => {
    const unit = (value - low) / span, relative = two_sided ? 2 * unit - 1 : unit;
    return span > 0 && Math.abs(relative) > threshold && flow[i] === 0;
  });
}

/** Map a value on the scale low..middle..high of a mode to -1 (bad) .. 1 (good); NaN without a value. */
function position(value, mode) {
  const [low, middle, high] = DATA.scales[mode.id];
  const span = value < middle ? middle - low : high - middle;
  const relative = span > 0 ? Math.max(-1, Math.min(1, (value - middle) / span)) : 0;
  return mode.good === "high" ? relative : -relative;
}

/** Blue for good, orange for bad: distinguishable with common colour blindness, translucent so that text is readable. */
function colourAt(goodness) {
  if (Number.isNaN(goodness)) return "transparent";
  const [red, green, blue] = goodness > 0 ? [33, 113, 205] : [230, 97, 1];
  return `rgba(${red}, ${green}, ${blue}, ${(0.62 * Math.abs(goodness)).toFixed(3)})`;
}

/** Token text with line ends and tabs marked. */
const visibleToken = (piece) => visible(piece).replace(/\n/g, "↵\n").replace(/\t/g, "→\t");

function paintTokens(line) {
  const tokens = tokensOf(line.response), values = state.mode && state.mode.of(tokens);
  Array.from(line.children, (span, i) => {
    span.style.backgroundColor = values ? colourAt(position(values[i], state.mode)) : "transparent";
  });
}

function tokenLine(response) {
  const tokens = tokensOf(response);
  if (!tokens.pieces.length) return h("p", {class: "note"}, "no tokens");
  const line = h("div", {class: "tokens", tabindex: 0, dir: "auto", role: "group",
                         "aria-label": "tokens; arrow keys move between them"});
  line.response = response;
  tokens.pieces.forEach((piece, i) => {
    const reward = tokens.flow_reward?.[i];
    const mark = reward > 0 ? "rewarded" : reward < 0 ? "penalised" : tokens.cut?.[i] ? "cut" : null;
    line.append(h("span", {class: mark, "data-i": i}, visibleToken(piece)));
  });
  line.at = 0;
  line.addEventListener("mouseover", (event) => event.target.dataset.i && describeToken(line, Number(event.target.dataset.i)));
  line.addEventListener("focus", () => describeToken(line, line.at));
  line.addEventListener("keydown", (event) => {
    const move = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!move) return;
    event.preventDefault();
    describeToken(line, Math.max(0, Math.min(tokens.pieces.length - 1, line.at + move)));
  });
  paintTokens(line);
  return line;
}

/** Show the values of a token in the read-out. */
function describeToken(line, i) {
  const tokens = tokensOf(line.response);
  if (!tokens.pieces.length) return;
  line.children[line.at]?.classList.remove("current");
  line.at = i;
  line.children[i]?.classList.add("current");
  const numbers = MODES.map((mode) => [mode.label, mode.of(tokens)?.[i]]).filter(([, value]) => value !== undefined);
  $("readout").replaceChildren(
    h("b", {}, `token ${i + 1} of ${tokens.pieces.length}: `), h("code", {}, visibleToken(tokens.pieces[i])),
    ...numbers.map(([label, value]) => h("span", {}, ` · ${label} `, h("b", {}, show(value, FLOAT16_DIGITS)))),
    tokens.cut?.[i] ? h("span", {}, " beyond the threshold, cut by top-k") : "",
  );
}

function drawLegend() {
  const mode = state.mode, legend = $("legend");
  if (!mode) return legend.replaceChildren();
  const bar = h("span", {class: "scale", role: "img", "aria-label": "orange: bad, blue: good"});
  const ends = mode.good === "high" ? [-1, 1] : [1, -1];
  bar.style.background = `linear-gradient(to right, ${colourAt(ends[0])}, transparent, ${colourAt(ends[1])})`;
  const [low, middle, high] = DATA.scales[mode.id].map((value) => show(value));
  legend.replaceChildren(h("span", {}, `${mode.label}: ${low} `), bar, h("span", {}, ` ${high}; white at ${middle}. `),
    DATA.scales.flow_reward ? h("span", {}, h("span", {class: "rewarded"}, "rewarded"), " ",
      h("span", {class: "penalised"}, "penalised"), " ",
      h("span", {class: "cut"}, "beyond the threshold, cut by top-k"), ".") : "");
}

function chooseMode(id) {
  state.mode = MODES.find((mode) => mode.id === id) ?? null;
  $("mode").value = id;
  drawLegend();
  document.querySelectorAll(".tokens").forEach(paintTokens);
}

// -- a prompt and its responses ----------------------------------------------------------------------------------

const BADGES = {right: "✓ right", wrong: "✗ wrong", undecided: "? undecided"};

function responseCard(response) {
  const rewards = Object.entries(response.rewards).map(([name, value]) =>
    h("span", {}, `${name} `, h("b", {}, value === null ? "undecided" : show(value)), " "));
  const notes = [`${tokensOf(response).pieces.length} tokens`,
                 {stop: "ended with the end token", length: "cut off at the maximum length"}[response.finish] ?? response.finish,
                 response.kept ? null : "its group gave no learning signal"].filter(Boolean).join(" · ");
  return h("article", {class: `card ${response.outcome}`},
    h("header", {}, h("b", {class: "badge"}, BADGES[response.outcome]), " ", ...rewards,
      response.advantage === null ? "" : h("span", {}, "advantage ", h("b", {}, show(response.advantage)))),
    h("p", {class: "note"}, notes),
    tokenLine(response));
}

function titleOf(group) {
  const step = group.step === null ? "" : `step ${group.step} · `;
  const run = DATA.runs.length > 1 ? `${DATA.runs[group.run].name} · ` : "";
  return `${run}${step}prompt ${group.row ?? "?"}`;
}

function tally(group) {
  return `${group.right} of ${group.responses.length} right` + (group.undecided ? `, ${group.undecided} undecided` : "");
}

function promptBlock(group) {
  const gone = group.images_missing ? h("p", {class: "note"}, `${group.images_missing} image(s) not in this page`) : null;
  return h("div", {class: "prompt"},
    ...group.images.map((index) => h("img", {src: DATA.images[index], alt: "image of the prompt"})), gone,
    group.system ? h("details", {}, h("summary", {}, "system prompt"), h("p", {class: "text", dir: "auto"}, group.system)) : null,
    h("p", {class: "text question", dir: "auto"}, visible(group.question)),
    h("p", {}, "gold ", h("code", {class: "gold"}, group.gold ?? "none")));
}

function showGroup(group) {
  state.group = group;
  const visits = DATA.visits.get(`${group.run}|${group.row}`) ?? [];
  const visitLinks = visits.length < 2 ? null : h("p", {}, "This prompt at step ", ...visits.map((visit) =>
    h("button", {type: "button", disabled: visit === group, onclick: () => {
      showGroup(visit);
      $("detail").querySelector("h3").focus();
    }},
      `${visit.step} (${visit.right}/${visit.responses.length})`)));
  $("detail").replaceChildren(h("div", {}, h("h3", {tabindex: -1}, `${titleOf(group)}: ${tally(group)}`), visitLinks,
    promptBlock(group), h("div", {class: "cards"}, ...group.responses.map(responseCard))));
  markCurrent($("list").children, (item) => item.group === group);
}

// -- browser -----------------------------------------------------------------------------------------------------

function listItem(group) {
  const dots = group.responses.map((response) => ({right: "●", wrong: "○", undecided: "?"})[response.outcome]).join("");
  const item = h("li", {}, h("button", {type: "button", onclick: () => { showGroup(group); reveal($("detail")); }},
    h("span", {class: "where"}, titleOf(group)), h("span", {class: "dots", role: "img", "aria-label": tally(group)}, dots),
    h("span", {class: "ask"}, oneLine(group.question))));
  item.group = group;
  markCurrent([item], () => state.group === group);
  return item;
}

function searchText(group) {
  group.searched ??= [group.question, group.gold ?? "",
    ...group.responses.map((response) => piecesOf(response).join(""))].join("\n").toLowerCase();
  return group.searched;
}

function outcomeMatches(group, filter) {
  const n = group.responses.length;
  return {any: true, right: group.right === n, wrong: group.wrong === n, undecided: group.undecided > 0,
          mixed: group.right > 0 && group.wrong > 0, truncated: group.responses.some((response) => response.finish === "length")}[filter];
}

function filterGroups() {
  const form = $("filters").elements, text = form.text.value.trim().toLowerCase();
  const low = form.from.value === "" ? -Infinity : Number(form.from.value);
  const high = form.to.value === "" ? Infinity : Number(form.to.value);
  const least = form.least.value === "" ? -Infinity : Number(form.least.value);
  const most = form.most.value === "" ? Infinity : Number(form.most.value);
  const matches = DATA.groups.filter((group) =>
    (form.run.value === "" || group.run === Number(form.run.value))
    && (group.step === null || (group.step >= low && group.step <= high))
    && outcomeMatches(group, form.outcome.value)
    && (form.change.value === "" || group.change === form.change.value)
    && (form.reward.value === "" || group.responses.some((response) => {
      const value = response.rewards[form.reward.value];
      return value !== null && value !== undefined && value >= least && value <= most;
    }))
    && (text === "" || searchText(group).includes(text)));
  $("count").textContent = `${matches.length} of ${DATA.groups.length} prompts`;
  state.pager.set(matches);
  if (matches.length && !matches.includes(state.group)) showGroup(matches[0]);
  if (!matches.length) $("detail").replaceChildren(h("p", {}, "No prompt fits these filters."));
}

// -- ranked tokens -----------------------------------------------------------------------------------------------

function rankTokens() {
  const form = $("ranking").elements, run = form.run.value;
  const low = form.from.value === "" ? -Infinity : Number(form.from.value);
  const high = form.to.value === "" ? Infinity : Number(form.to.value);
  const sums = new Map();
  for (const [index, step, piece, rewarded, penalised, seen] of DATA.token_counts) {
    if ((run !== "" && index !== Number(run)) || step < low || step > high) continue;
    const sum = sums.get(piece) ?? {piece, rewarded: 0, penalised: 0, seen: 0};
    sum.rewarded += rewarded;
    sum.penalised += penalised;
    sum.seen += seen;
    sums.set(piece, sum);
  }
  for (const kind of ["rewarded", "penalised"]) {
    const top = [...sums.values()].filter((sum) => sum[kind]).sort((a, b) => b[kind] - a[kind] || a.piece - b.piece);
    $(`ranked-${kind}`).replaceChildren(...top.slice(0, 20).map((sum) => h("tr", {},
      h("td", {}, h("code", {}, visibleToken(DATA.vocabulary[sum.piece]).replaceAll(" ", "␣"))), h("td", {}, DATA.classes[sum.piece]),
      h("td", {}, String(sum[kind])), h("td", {}, String(sum.seen)),
      h("td", {}, `${(100 * sum[kind] / sum.seen).toFixed(0)} %`))));
  }
}

// -- two sides ---------------------------------------------------------------------------------------------------

/** Groups of a side, "run|first" or "run|last": the first or last group of each prompt in that run. */
function sideOf(value) {
  const [run, which] = value.split("|"), side = new Map();
  for (const group of DATA.groups) {
    const key = JSON.stringify([group.row, group.question, group.gold]); // row numbers alone would mix up prompts of different data sets
    if (group.run === Number(run) && group.row !== null && !(which === "first" && side.has(key))) side.set(key, group);
  }
  return side;
}

const solved = (group) => group.right > group.wrong;

function compareSides() {
  const form = $("sides").elements, a = sideOf(form.a.value), b = sideOf(form.b.value);
  const pairs = [...a.keys()].filter((key) => b.has(key)).map((key) => [a.get(key), b.get(key)]);
  const kinds = {both: [], "only A": [], "only B": [], neither: []};
  for (const [left, right] of pairs) {
    kinds[solved(left) ? (solved(right) ? "both" : "only A") : solved(right) ? "only B" : "neither"].push([left, right]);
  }
  $("solved").replaceChildren(...Object.entries(kinds).map(([kind, list]) => h("button", {type: "button",
    onclick: () => state.pairs.set(list)}, `${kind}: ${list.length}`)));
  $("pairs-note").textContent = pairs.length ? `Prompts answered by both sides: ${pairs.length}. Solved: `
    + "more right than wrong responses." : "No prompt was answered by both sides.";
  state.pairs.set(pairs.sort(([a1, b1], [a2, b2]) => Math.abs(b2.right - a2.right) - Math.abs(b1.right - a1.right)));
  if (pairs.length) showPair(pairs[0]);
  else $("pair").replaceChildren();
}

function showPair([a, b]) {
  const side = (name, group) => h("section", {}, h("h4", {}, `${name}: ${titleOf(group)}, ${tally(group)}`),
    ...group.responses.map(responseCard));
  $("pair").replaceChildren(promptBlock(a), h("div", {class: "sides"}, side("A", a), side("B", b)));
}

// -- start -------------------------------------------------------------------------------------------------------

function startBrowser() {
  const runs = DATA.runs.map(({name}, index) => [index, name]);
  for (const form of [$("filters"), $("ranking")].filter(Boolean)) {
    fillSelect(form.elements.run, runs);
    form.elements.run.closest("label").hidden = runs.length < 2;
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  fillSelect($("filters").elements.reward, DATA.reward_names.map((name) => [name, name]));
  fillSelect($("mode"), [["", "nothing"], ...MODES.map((mode) => [mode.id, mode.label])]);
  $("mode").addEventListener("change", () => chooseMode($("mode").value));
  state.pager = new Pager($("list"), $("pages"), 20, listItem);
  $("filters").addEventListener("input", filterGroups);
  $("filters").addEventListener("reset", () => setTimeout(filterGroups));
  filterGroups();
  if (!$("ranking")) return;
  $("ranking").addEventListener("input", rankTokens);
  rankTokens();
}

function startCompare() {
  const repeated = [...DATA.visits.values()].some((visits) => visits.length > 1);
  const sides = DATA.runs.flatMap(({name}, index) => repeated
    ? [[`${index}|first`, `${name}, first time`], [`${index}|last`, `${name}, last time`]]
    : [[`${index}|last`, name]]);
  const alone = sides.length < 2;
  for (const part of [$("compare"), document.querySelector('nav a[href="#compare"]')]) part.hidden = alone;
  if (alone) return;
  for (const name of ["a", "b"]) fillSelect($("sides").elements[name], sides);
  $("sides").elements.b.selectedIndex = $("sides").elements.b.options.length - 1;
  state.pairs = new Pager($("pairs"), $("pair-pages"), 10, (pair) => h("li", {}, h("button", {type: "button",
    onclick: () => { showPair(pair); reveal($("pair")); }}, h("span", {class: "where"}, `prompt ${pair[0].row}`),
    h("span", {}, ` A ${pair[0].right}/${pair[0].responses.length}, B ${pair[1].right}/${pair[1].responses.length} `),
    h("span", {class: "ask"}, oneLine(pair[0].question)))));
  $("sides").addEventListener("input", compareSides);
  compareSides();
}

run((data) => {
  DATA = data;
  MODES = modesOf(data);
  state = {mode: null, group: null};
  DATA.visits = new Map();
  for (const group of DATA.groups) {
    for (const response of group.responses) response.run = group.run;
    const key = `${group.run}|${group.row}`;
    if (group.row !== null) DATA.visits.set(key, [...(DATA.visits.get(key) ?? []), group]);
  }
  const stepNow = data.charts.length ? drawCharts(data.charts) : null;
  if (!DATA.groups.length) return;
  startBrowser();
  startCompare();
  chooseMode(MODES.length ? MODES[0].id : "");
  if (stepNow) $("step-rollouts").addEventListener("click", () => {
    // A rollout is logged under the step before its update, and not every step has one: take the last one before.
    const rolloutStep = Math.max(...DATA.groups.map((group) => group.step).filter((step) => step < stepNow()), -1);
    Object.assign($("filters").elements.from, {value: Math.max(0, rolloutStep)});
    Object.assign($("filters").elements.to, {value: Math.max(0, rolloutStep)});
    filterGroups();
    $("rollouts").scrollIntoView();
  });
  // Build the search texts while the page is idle, so that the first search is fast.
  (window.requestIdleCallback ?? setTimeout)(() => DATA.groups.forEach(searchText));
});
