// Draws curves over steps with uPlot; one slider moves the cursors of all charts.
"use strict";

const COLOURS = ["#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377"]; // Paul Tol's bright scheme
const DASHES = [[], [8, 4], [2, 3], [12, 3, 2, 3]];

/**
 * uPlot series, columns and bands of a chart; a line with a band has two more series for the edges, and a mean of seeds
 * one for each seed, which the legend does not list. `parts` maps the index of a line to those of its seeds.
 */
function seriesOf(chart) {
  const series = [{label: "step"}], columns = [chart.steps], bands = [], parts = new Map();
  for (const line of chart.lines) {
    const stroke = COLOURS[line.colour % COLOURS.length];
    const common = {dash: DASHES[line.dash % DASHES.length], spanGaps: true, points: {show: chart.steps.length < 2},
                    value: (_, value) => show(value)};
    const singles = (line.singles ?? []).map((single) => {
      columns.push(single.values);
      return series.push({...common, label: `${line.label}, ${single.label}`, class: "single", stroke: stroke + "88",
                          width: 0.8}) - 1;
    });
    parts.set(series.push({...common, label: line.label, stroke, width: 2}) - 1, singles);
    columns.push(line.values);
    if (!line.low) continue;
    for (const [name, edge] of [["highest seed", line.high], ["lowest seed", line.low]]) {
      series.push({label: `${line.label}, ${name}`, width: 0, spanGaps: true, points: {show: false},
                   value: (_, value) => show(value)});
      columns.push(edge);
    }
    bands.push({series: [series.length - 2, series.length - 1], fill: stroke + "33"});
  }
  return {series, columns, bands, parts};
}

function axisOf(label) {
  const ink = getComputedStyle(document.body).color;
  const line = {stroke: ink + "", width: 0.2};
  return {label, stroke: ink, grid: line, ticks: line, size: label === "step" ? 34 : 58, labelSize: 16,
          labelFont: "12px system-ui", font: "12px system-ui",
          values: (_, ticks) => ticks.map((tick) => show(tick))};
}

function drawChart(chart, container) {
  const {series, columns, bands, parts} = seriesOf(chart);
  const figure = h("figure", {class: "chart", id: `chart-${chart.id}`}, h("figcaption", {}, chart.title));
  if (chart.note) figure.append(h("p", {class: "note"}, chart.note));
  container.append(figure);
  const options = {
    width: Math.max(260, figure.clientWidth - 16), height: 220, series, bands, scales: {x: {time: false}},
    axes: [axisOf("step"), axisOf(chart.unit)], cursor: {y: false, sync: {key: "steps"}, drag: {x: true, y: false}},
    hooks: {setSeries: [(u, index, {show}) => {  // the seeds of a line are shown and hidden with it
      for (const part of parts.get(index) ?? []) if (show !== undefined && u.series[part].show !== show) u.setSeries(part, {show});
    }]},
    legend: {markers: {dash: (u, i) => u.series[i].dash?.length ? "dashed" : "solid"}},
  };
  const plot = new uPlot(options, columns, figure);
  for (const row of plot.root.querySelectorAll(".u-series:not(:first-child)")) {
    row.tabIndex = 0; // uPlot toggles lines only by mouse
    row.addEventListener("keydown", (event) => event.key === "Enter" && row.querySelector("th").click());
  }
  plot.root.querySelector("canvas").setAttribute("aria-hidden", "true");
  return {plot, figure, chart};
}

/** Draw all charts; return a function that gives the current step of the slider. */
function drawCharts(charts) {
  let drawn = charts.map((chart) => drawChart(chart, $("charts")));
  const steps = [...new Set(charts.flatMap((chart) => chart.steps))].sort((a, b) => a - b);
  const slider = $("step");
  slider.max = Math.max(0, steps.length - 1);
  const move = () => {
    const step = steps[slider.value];
    $("step-now").textContent = `step ${step}`;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const {plot, chart} of drawn) {
      // Charts with fewer logged steps show their last step up to this one.
      const index = chart.steps.findLastIndex((logged) => logged <= step);
      if (index < 0) continue;
      plot.setCursor({left: plot.valToPos(chart.steps[index], "x"), top: plot.over.clientHeight / 2}, false);
      plot.setLegend({idx: index}, false);
    }
  };
  const redraw = () => {
    for (const {plot, figure} of drawn) {
      plot.destroy();
      figure.remove();
    }
    drawn = charts.map((chart) => drawChart(chart, $("charts")));
    move();
  };
  slider.addEventListener("input", move);
  slider.value = slider.max;
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) redraw();
    width = window.innerWidth;
  });
  move();
  return () => steps[slider.value];
}
