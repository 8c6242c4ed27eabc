"use strict";
// Counts what a threshold would do and draws the charts. Everything comes from the JSON element #data.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const good = data.score.filter((_, i) => !data.truth[i]);
  const anomalous = data.score.filter((_, i) => data.truth[i]);
  const distinct = [...new Set(data.threshold === null ? data.score : [...data.score, data.threshold])].sort((a, b) => a - b);
  const highest = distinct[distinct.length - 1];
  const aboveAll = highest + Math.max(1e-9, Math.abs(highest) * 1e-6);
  const cuts = [...distinct, aboveAll];
  const start = data.threshold === null ? cuts.length - 1 : cuts.indexOf(data.threshold);
  const BLUE = "#2b78c5", ORANGE = "#d1541f";

  // ------------------------------------------------------------------------------------------------------- counting

  function count(threshold) {
    const flagged = (scores) => scores.reduce((n, score) => n + (score >= threshold), 0);
    const falseAlarms = flagged(good), found = flagged(anomalous);
    return { false_alarms: falseAlarms, passed: good.length - falseAlarms, found, misses: anomalous.length - found };
  }

  function rates(counts) {
    const share = (part, whole) => (whole ? part / whole : null);
    return {
      false_alarms: share(counts.false_alarms, good.length),
      misses: share(counts.misses, anomalous.length),
      precision: share(counts.found, counts.found + counts.false_alarms),
      f1: anomalous.length ? (2 * counts.found) / (anomalous.length + counts.found + counts.false_alarms) : null,
    };
  }

  const WHY = {
    false_alarms: "no good test images",
    misses: "no anomalous test images",
    precision: anomalous.length ? "nothing is called anomalous" : "no anomalous test images",
    f1: "no anomalous test images",
  };

  // ---------------------------------------------------------------------------------------------------------- tables

  const short = (value) => String(Number(value.toPrecision(4)));
  const perThousand = (rate) => (1000 * rate).toLocaleString("en", { maximumFractionDigits: 1 });
  const slider = document.getElementById("slider");
  const prevalence = document.getElementById("prevalence");

  function show(position) {
    const threshold = cuts[position];
    const counts = count(threshold), rate = rates(counts);
    const above = position === cuts.length - 1;
    slider.value = String(position);
    slider.setAttribute("aria-valuetext", short(threshold));
    document.getElementById("slider-value").textContent = above ? "above all scores" : short(threshold);
    document.getElementById("slider-origin").textContent =
      data.threshold === threshold ? "the model's" : data.threshold === null ? "" : `the model's: ${short(data.threshold)}`;
    for (const code of document.querySelectorAll(".code-threshold")) code.textContent = String(threshold);
    for (const [name, value] of Object.entries(counts)) {
      document.querySelector(`[data-count="${name}"]`).textContent = value;
    }
    for (const [name, value] of Object.entries(rate)) {
      const text = name === "precision" || name === "f1" ? (v) => v.toFixed(3) : perThousand;
      document.querySelector(`[data-rate="${name}"]`).textContent = value === null ? WHY[name] : text(value);
    }
    kinds(threshold);
    pictures(threshold);
    mix(rate);
    mark(threshold, rate);
  }

  function kinds(threshold) {
    for (const cell of document.querySelectorAll("[data-missed]")) {
      const scores = data.score.filter((_, i) => data.truth[i] && data.defect[i] === cell.dataset.missed);
      const missed = scores.filter((score) => score < threshold).length;
      const share = document.createElement("small");
      share.textContent = `${((100 * missed) / scores.length).toFixed(missed % scores.length ? 1 : 0)}%`;
      cell.replaceChildren(`${missed} `, share);
    }
    const at = document.getElementById("kinds-at");
    if (at) at.textContent = data.threshold === threshold ? "the model's threshold" : `the threshold ${short(threshold)}`;
    const pixels = document.getElementById("pixel-threshold");
    // As the model's own rule: in proportion, or by the same difference where the old threshold isn't above 0.
    if (pixels) pixels.textContent = short(data.threshold > 0 ? (data.pixel_threshold * threshold) / data.threshold : data.pixel_threshold + threshold - data.threshold);
  }

  function pictures(threshold) {
    for (const figure of document.querySelectorAll("figure[data-score]")) {
      const score = Number(figure.dataset.score), bad = figure.dataset.truth === "1";
      const word = (flagged) => (bad ? (flagged ? "found" : "missed") : flagged ? "false alarm" : "passed");
      const now = word(score >= threshold);
      figure.querySelector(".verdict").textContent = `: ${now}`;
      figure.classList.toggle("changed", data.threshold !== null && now !== word(score >= data.threshold));
    }
  }

  function mix(rate) {
    const bad = Math.min(1000, Math.max(0, Number(prevalence.value) || 0));
    const sentences = [];
    const around = (number) => number.toLocaleString("en", { maximumFractionDigits: number < 10 ? 1 : 0 });
    if (rate.false_alarms !== null) sentences.push(`${around(rate.false_alarms * (1000 - bad))} false alarms`);
    if (rate.misses !== null) sentences.push(`${around(rate.misses * bad)} misses`);
    document.getElementById("mix").textContent = `${sentences.join(" and ")} to be expected.`;
  }

  // ---------------------------------------------------------------------------------------------------------- charts

  const axis = (title, more = {}) => ({ title: { text: title, standoff: 8 }, fixedrange: true, automargin: true, ...more });
  const layout = (more) => ({
    margin: { l: 52, r: 14, t: 12, b: 46 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "inherit", size: 13 }, hovermode: "closest", dragmode: false,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, ...more,
  });
  const config = { displayModeBar: false, responsive: true };
  const element = (id) => document.getElementById(id);
  const charts = ["chart-scores", "chart-roc", "chart-pr"].map(element).filter((chart) => chart);

  function drawScores() {
    // A bin begins exactly at the model's threshold: bars to its right are what is called anomalous.
    const low = distinct[0], size = (highest - low || Math.abs(highest) || 1) / 40;
    const anchor = data.threshold ?? low;
    const begin = anchor - Math.ceil((anchor - low) / size) * size;
    const bins = { start: begin, end: highest + size, size };
    const bars = (name, x, color) => ({ type: "histogram", name: `${name} (${x.length})`, x, xbins: bins, autobinx: false, opacity: 0.65, marker: { color } });
    const traces = [];
    if (good.length) traces.push(bars("good", good, BLUE));
    if (anomalous.length) traces.push(bars("anomalous", anomalous, ORANGE));
    const line = { type: "line", xref: "x", yref: "paper", y0: 0, y1: 1, x0: cuts[start], x1: cuts[start], line: { width: 2, dash: "dot" } };
    return Plotly.newPlot("chart-scores", traces, layout({
      barmode: "overlay", showlegend: true, xaxis: axis("raw score"), yaxis: axis("images"), shapes: [line],
    }), config);
  }

  function drawCurve(id, x, y, xTitle, yTitle, step) {
    const curve = { type: "scatter", mode: "lines", x, y, line: { color: BLUE, width: 2, ...(step && { shape: "hv" }) }, hovertemplate: "%{x:.3f}, %{y:.3f}<extra></extra>" };
    const point = { type: "scatter", mode: "markers", x: [], y: [], marker: { size: 12, color: ORANGE }, hovertemplate: "at the threshold: %{x:.3f}, %{y:.3f}<extra></extra>" };
    return Plotly.newPlot(id, [curve, point], layout({
      showlegend: false, xaxis: axis(xTitle, { range: [-0.02, 1.02] }), yaxis: axis(yTitle, { range: [-0.02, 1.04] }),
    }), config);
  }

  function mark(threshold, rate) {
    if (!charts[0]._fullLayout) return;
    const marked = (x, y) => (x === null || y === null ? { x: [[]], y: [[]] } : { x: [[x]], y: [[y]] });
    Plotly.relayout("chart-scores", { "shapes[0].x0": threshold, "shapes[0].x1": threshold });
    const hits = rate.misses === null ? null : 1 - rate.misses;
    if (data.roc && element("chart-roc")) Plotly.restyle("chart-roc", marked(rate.false_alarms, hits), [1]);
    if (data.pr && element("chart-pr")) Plotly.restyle("chart-pr", marked(hits, rate.precision), [1]);
  }

  // Paper has a width of its own, and no event says what it is: 330 px per chart fits A4 and Letter.
  function resize(width) {
    for (const chart of charts) Plotly.relayout(chart, width ? { width, height: 260, autosize: false } : { width: null, height: null, autosize: true });
  }
  window.addEventListener("beforeprint", () => resize(330));
  window.addEventListener("afterprint", () => resize(null));

  // ----------------------------------------------------------------------------------------------------------- start

  slider.max = String(cuts.length - 1);
  document.querySelector(".slider").hidden = false;
  slider.addEventListener("input", () => show(Number(slider.value)));
  prevalence.addEventListener("input", () => mix(rates(count(cuts[Number(slider.value)]))));
  document.getElementById("slider-reset").addEventListener("click", () => show(start));
  for (const button of document.querySelectorAll("[data-threshold]")) {
    button.hidden = false;
    const wanted = Number(button.dataset.threshold);
    button.addEventListener("click", () => {
      const position = cuts.findIndex((cut) => cut >= wanted);
      show(position < 0 ? cuts.length - 1 : position);
      document.getElementById("threshold").scrollIntoView({ behavior: "smooth" });
    });
  }
  for (const pair of document.querySelectorAll(".pair")) {
    const enlarge = () => pair.setAttribute("aria-pressed", String(pair.parentElement.classList.toggle("large")));
    pair.addEventListener("click", enlarge);
    pair.addEventListener("keydown", (event) => {
      if (event.key === "Enter") enlarge();
    });
  }
  const drawing = [drawScores()];
  if (data.roc) drawing.push(drawCurve("chart-roc", data.roc.false_alarm_rate, data.roc.hit_rate, "false alarms among good", "hits among anomalous", false));
  if (data.pr) drawing.push(drawCurve("chart-pr", data.pr.recall, data.pr.precision, "recall", "precision", true));
  Promise.all(drawing).then(() => show(start));
})();
