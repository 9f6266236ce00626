// Page of `rlfr-eval report`: answers with their prompts, images, verdicts and judge replies.
"use strict";

const MARKS = {right: "●", wrong: "○", undecided: "?"};
const BADGES = {right: "✓ right", wrong: "✗ wrong", undecided: "? undecided"};
let DATA, pager, current = null;

/** Group the answers of all runs by problem. */
function byProblem(answers) {
  const problems = new Map();
  for (const answer of answers) {
    const key = `${answer.benchmark}/${answer.problem}`;
    if (!problems.has(key)) problems.set(key, {key, benchmark: answer.benchmark, answers: [], ...DATA.problems[key]});
    problems.get(key).answers.push(answer);
  }
  for (const problem of problems.values()) problem.flipped = isFlipped(problem.answers);
  return [...problems.values()];
}

/** Whether one run is right and another wrong, each in all its decided samples. */
function isFlipped(answers) {
  const runs = new Map();
  for (const {run, verdict} of answers) {
    if (verdict !== "undecided") runs.set(run, [...(runs.get(run) ?? []), verdict]);
  }
  const unanimous = [...runs.values()].filter((verdicts) => new Set(verdicts).size === 1).map(([first]) => first);
  return unanimous.includes("right") && unanimous.includes("wrong");
}

function searchText(problem) {
  problem.searched ??= [problem.key, problem.question ?? "", ...(problem.golds ?? []),
    ...problem.answers.flatMap((answer) => [answer.raw, answer.extracted ?? "", answer.reply ?? ""])].join("\n").toLowerCase();
  return problem.searched;
}

function filterProblems(problems) {
  const form = $("filters").elements, text = form.text.value.trim().toLowerCase();
  const filters = ["run", "verdict", "by", "finish"].filter((name) => form[name].value !== "");
  const matches = problems.filter((problem) =>
    (form.benchmark.value === "" || problem.benchmark === form.benchmark.value)
    && (form.flip.value === "" || problem.flipped)
    && (!filters.length || problem.answers.some((answer) => filters.every((name) => String(answer[name]) === form[name].value)))
    && (text === "" || searchText(problem).includes(text)));
  $("count").textContent = `${matches.length} of ${problems.length} problems`;
  pager.set(matches);
  if (matches.length && !matches.includes(current)) showProblem(matches[0]);
  if (!matches.length) $("detail").replaceChildren(h("p", {}, "No problem fits these filters."));
}

function listItem(problem) {
  const marks = problem.answers.map((answer) => MARKS[answer.verdict]).join("");
  const item = h("li", {}, h("button", {type: "button", onclick: () => {
    showProblem(problem);
    reveal($("detail"));
  }}, h("span", {class: "where"}, problem.key), h("span", {class: "dots", role: "img", "aria-label": marks.length > 8 ? `${marks.length} answers` :
    problem.answers.map((answer) => answer.verdict).join(", ")}, marks),
  h("span", {class: "ask"}, oneLine(problem.title ?? ""))));
  item.problem = problem;
  markCurrent([item], () => problem === current);
  return item;
}

function answerCard(answer) {
  const facts = [`sample ${answer.sample}`, `${answer.tokens ?? "?"} tokens`, `${show(answer.seconds)} s`,
                 answer.finish === "length" ? "cut off" : answer.finish].filter(Boolean).join(" · ");
  const who = answer.by === "judge" ? `judge ${answer.judge ?? ""}` : "rules";
  return h("article", {class: `card ${answer.verdict}`},
    h("header", {}, h("b", {class: "badge"}, BADGES[answer.verdict]), ` by ${who}`,
      answer.reason ? ` (${answer.reason})` : "", DATA.runs.length > 1 ? h("b", {}, ` · ${DATA.runs[answer.run]}`) : ""),
    h("p", {class: "note"}, facts),
    answer.asked ? h("details", {}, h("summary", {}, "prompt differs from the one above"),
      h("p", {class: "text", dir: "auto"}, visible(answer.asked))) : null,
    h("div", {class: "tokens", tabindex: 0, dir: "auto"}, visible(answer.raw)),
    h("p", {}, "extracted ", answer.extracted === null ? h("i", {}, "nothing") : h("code", {}, visible(answer.extracted)),
      answer.how ? h("span", {class: "note"}, ` (${answer.how})`) : ""),
    answer.reply ? h("details", {}, h("summary", {}, "judge's reply"), h("p", {class: "text", dir: "auto"}, visible(answer.reply))) : null);
}

function showProblem(problem) {
  current = problem;
  const missing = problem.images_missing ? h("p", {class: "note"}, `${problem.images_missing} image(s) not in this page`) : null;
  $("detail").replaceChildren(h("div", {}, h("h3", {}, problem.key), h("div", {class: "prompt"},
    ...(problem.images ?? []).map((index) => h("img", {src: DATA.images[index], alt: "image of the problem"})), missing,
    problem.question === undefined ? h("p", {class: "note"}, "The problems of this run could not be read again.")
      : h("p", {class: "text question", dir: "auto"}, visible(problem.question)),
    problem.golds ? h("p", {}, "gold ", ...problem.golds.map((gold) => h("code", {class: "gold"}, `${visible(gold)} `))) : null),
  h("div", {class: "cards"}, ...problem.answers.map(answerCard))));
  markCurrent($("list").children, (item) => item.problem === problem);
}

run((data) => {
  DATA = data;
  const form = $("filters"), problems = byProblem(DATA.answers);
  fillSelect(form.elements.run, DATA.runs.map((name, index) => [index, name]));
  fillSelect(form.elements.benchmark, DATA.benchmarks.map((name) => [name, name]));
  for (const name of ["run", "flip"]) form.elements[name].closest("label").hidden = DATA.runs.length < 2;
  pager = new Pager($("list"), $("pages"), 20, listItem);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => filterProblems(problems));
  form.addEventListener("reset", () => setTimeout(() => filterProblems(problems)));
  filterProblems(problems);
  (window.requestIdleCallback ?? setTimeout)(() => problems.forEach(searchText));
});
