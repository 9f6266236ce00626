// Draws the curves of a sweep.
"use strict";

run((data) => {
  if (data.charts.length) drawCharts(data.charts);
});
