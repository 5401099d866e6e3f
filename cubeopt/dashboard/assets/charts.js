// draw(chart, content) draws a figure.chart from what /data gives: {figure: {data, layout} | null,
// says, columns, rows, empty}; see Chart in context.py. Drawn again it keeps zoom, pan and what the
// legend hides.

const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new WeakMap(); // chart: what it was last drawn from
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

/** The value of a variable of the style sheet. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** JSON from an address of ours; an Error whose message is meant for people. */
export async function fetched(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { headers: { Accept: "application/json" }, ...options });
  } catch {
    throw new Error("The dashboard does not answer. Is cubeopt dashboard still running?");
  }
  if (answer.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw new Error("You have been logged out.");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.reason ?? `The dashboard answered ${answer.status}.`);
  return content;
}

/** Draw *content*, as /data gives it, into *chart*. */
export function draw(chart, content) {
  drawn.set(chart, content);
  const plot = chart.querySelector(".plot");
  chart.querySelector(".says").textContent = content.says ?? "";
  tabulate(chart.querySelector("details"), content.columns ?? [], content.rows ?? []);
  if (!content.figure) {
    say(plot, content.empty || "There is nothing to draw yet.", "hint");
    return;
  }
  const { data, layout } = themed(content.figure);
  layout.height ??= Number(plot.dataset.height) || 420;
  layout.uirevision ??= chart.id;
  delete layout.width;
  layout.autosize = true;
  if (!plot.classList.contains("js-plotly-plot")) plot.replaceChildren();
  Plotly.react(plot, data, layout, CONFIG);
  name(chart, plot);
}

function name(chart, plot) {
  // What is drawn is an image to who cannot see it; the sentence and the table tell the rest.
  const svg = plot.querySelector("svg.main-svg");
  svg?.setAttribute("role", "img");
  svg?.setAttribute("aria-label", chart.querySelector("figcaption").textContent);
}

function say(plot, text, kind) {
  if (plot.classList.contains("js-plotly-plot")) Plotly.purge(plot);
  plot.classList.remove("js-plotly-plot");
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  plot.replaceChildren(line);
}

function tabulate(details, columns, rows) {
  details.hidden = rows.length === 0;
  if (details.hidden) return;
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  const numeric = columns.map((_, place) => rows.some((row) => typeof row[place] === "number"));
  columns.forEach((column, place) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = column;
    cell.classList.toggle("number", numeric[place]);
    head.append(cell);
  });
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((value, place) => {
      const cell = line.insertCell();
      cell.textContent = shown(value);
      cell.classList.toggle("number", numeric[place]);
    });
  }
  details.querySelector(".wide").replaceChildren(table);
}

/** A value as people read it: four digits of a number, a dash for what is not there. */
export function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e6 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

/** A figure in the colours of the page; what it says of colours itself stays, but for its ink. */
function themed(figure) {
  const ink = { "#333333": "ink", "#595959": "quiet", "#BBBBBB": "line", "#EEEEEE": "grid" };
  const inked = JSON.stringify(figure).replace(/"(#333333|#595959|#BBBBBB|#EEEEEE)"/gi, (_, found) =>
    JSON.stringify(colour(ink[found.toUpperCase()])),
  );
  const { data, layout } = JSON.parse(dark.matches ? inked.replace(/"white"|"rgba\(255, ?255, ?255, ?0?\.75\)"/g, JSON.stringify(colour("surface"))) : inked);
  const axis = { gridcolor: colour("grid"), zerolinecolor: colour("quiet"), linecolor: colour("line"), tickcolor: colour("line") };
  const family = getComputedStyle(document.body).fontFamily;
  const dressed = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { size: 13, ...layout?.font, family, color: colour("ink") },
    hoverlabel: { ...layout?.hoverlabel, font: { family, ...layout?.hoverlabel?.font } },
  };
  for (const key of new Set(["xaxis", "yaxis", ...Object.keys(dressed)])) {
    if (/^[xy]axis\d*$/.test(key)) dressed[key] = { ...axis, ...dressed[key] };
    if (/^scene\d*$/.test(key)) {
      dressed[key] = { ...dressed[key] };
      for (const each of ["xaxis", "yaxis", "zaxis"]) {
        dressed[key][each] = { ...axis, backgroundcolor: "rgba(0,0,0,0)", ...dressed[key][each] };
      }
    }
  }
  return { data, layout: dressed };
}

dark.addEventListener("change", () => {
  for (const chart of document.querySelectorAll("figure.chart")) {
    if (drawn.has(chart)) draw(chart, drawn.get(chart));
  }
});
