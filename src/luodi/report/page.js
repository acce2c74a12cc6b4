// Draws the charts in the style sheet's colours, again when light and dark change, and filters the gallery.
"use strict";
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

function painted(value) {
  if (typeof value === "string") return value.startsWith("@") ? colour(value.slice(1)) : value;
  if (Array.isArray(value)) return value.map(painted);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, painted(inner)]));
  }
  return value;
}

function dressed(layout) {
  const axis = {
    gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, tickcolor: colour("line"),
    tickfont: { color: colour("soft"), size: 11 }, automargin: true, fixedrange: window.innerWidth < 760,
  };
  const own = painted(layout);
  const title = (one) => one && one.title ? { title: { ...one.title, font: { size: 12, color: colour("soft") } } } : {};
  return {
    font: { family: getComputedStyle(document.body).fontFamily, color: colour("ink"), size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 48, r: 14, t: 12, b: 40 },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: colour("soft"), size: 12 } },
    ...own,
    xaxis: { ...axis, automargin: false, ...own.xaxis, ...title(own.xaxis) },
    yaxis: { ...axis, ...own.yaxis, ...title(own.yaxis) },
    ...(own.yaxis2 ? { yaxis2: { ...axis, ...own.yaxis2, ...title(own.yaxis2) } } : {}),
  };
}

function draw() {
  for (const figure of document.querySelectorAll(".chart")) {
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    Plotly.react(figure.querySelector(".plot"), painted(data), dressed(layout), { displayModeBar: false, responsive: true });
  }
}

function choose(target, truth, answer) {
  for (const gallery of document.querySelectorAll(".gallery")) {
    if (gallery.dataset.target !== target) continue;
    let shown = 0;
    for (const card of gallery.children) {
      const fits = truth === null || (card.dataset.truth === truth && card.dataset.answer === answer);
      card.hidden = truth === null ? card.dataset.later === "1" : !fits;
      shown += card.hidden ? 0 : 1;
    }
    const filter = gallery.parentElement.querySelector(".filter");
    filter.hidden = truth === null;
    filter.querySelector("span").textContent = `truth ${truth}, answered ${answer}: ${shown} shown`;
    if (truth !== null) gallery.parentElement.scrollIntoView();
  }
}

addEventListener("DOMContentLoaded", () => {
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("print").addEventListener("change", draw);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { target, truth, answer, act } = button.dataset;
    if (truth !== undefined) choose(target, truth, answer);
    if (act === "all") choose(target, null, null);
    if (act === "more") {
      for (const card of button.parentElement.querySelectorAll(".mistake")) { card.dataset.later = "0"; card.hidden = false; }
      button.remove();
    }
  });
});
