"use strict";
(() => {
  const island = JSON.parse(document.getElementById("island").textContent);
  const $ = (id) => document.getElementById(id);
  const COLORS = ["#2f7de1", "#d9730d", "#7b8794", "#1a9e77", "#b565c9", "#b08900", "#c4507a", "#4aa3b5", "#8d6e4f", "#6a6fd6"];
  const AXIS = { labelColor: "currentColor", titleColor: "currentColor", domainColor: "#8b949e", tickColor: "#8b949e", gridColor: "#8b949e", gridOpacity: 0.25, titleFontWeight: 500 };
  const CONFIG = { background: "transparent", aria: false, view: { stroke: null }, axis: AXIS,
    legend: { labelColor: "currentColor", titleColor: "currentColor", orient: "bottom", title: null, labelLimit: 120, columns: 3 }, font: "system-ui, sans-serif" };
  const models = island.models.map((m) => m.title);
  const color = (domain) => ({ field: "series", type: "nominal", scale: { domain, range: COLORS }, legend: domain.length > 1 ? {} : null });
  const number = (title, extra) => ({ type: "quantitative", title, ...extra });
  let pending = 0;

  const say = () => { document.documentElement.dataset.ready = pending ? "no" : "yes"; };
  function draw(element, spec) {
    if (!element || typeof vegaEmbed === "undefined") return;
    pending += 1;
    say();
    const wide = element.classList.contains("wide");
    const full = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", height: wide ? 260 : 150,
      autosize: { type: "fit-x", contains: "padding" }, config: CONFIG, ...spec };
    vegaEmbed(element, full, { actions: false, renderer: "svg" })
      .then(() => { // the picture as a whole has a role and a name; its parts say nothing by themselves
        for (const part of element.querySelectorAll("svg, svg *")) for (const name of ["role", "aria-roledescription", "aria-label"]) part.removeAttribute(name);
      })
      .catch((error) => { element.textContent = "This picture could not be drawn: " + error.message; console.error(error); })
      .finally(() => { pending -= 1; say(); });
  }

  // Tables: a click on a heading sorts, first so that the largest figures or the first letters come on top.
  function sortable(table) {
    const body = table.tBodies[0];
    for (const button of table.querySelectorAll("thead button[data-sort]")) {
      const heading = button.parentElement;
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const text = button.dataset.sort === "text";
        const now = heading.getAttribute("aria-sort");
        const up = now === "none" ? text : now === "descending";
        for (const other of table.tHead.querySelectorAll("th")) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => {
          const cell = row.cells[Number(heading.dataset.column ?? heading.cellIndex)];
          if (text) return cell.textContent.trim();
          const figure = cell.querySelector("[data-value]");
          return figure ? Number(figure.dataset.value) : null;
        };
        const rows = [...body.rows].map((row) => [key(row), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null); // what has no figure stays below
          return (text ? a.localeCompare(b, undefined, { numeric: true }) : a - b) * (up ? 1 : -1);
        });
        body.append(...rows.map(([, row]) => row));
      });
    }
  }

  function filterable(rows, input, status, what, keep = () => true) {
    const apply = () => {
      const wanted = input.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const name = (row.dataset.slice ?? row.dataset.feature).toLowerCase();
        row.hidden = !(name.includes(wanted) && keep(row));
        if (!row.hidden) shown += row.tagName === "TR";
      }
      const total = rows.filter((row) => row.tagName === "TR").length;
      status.textContent = shown === total ? `${total} ${what}` : `${shown} of ${total} ${what}`;
    };
    input.addEventListener("input", apply);
    apply();
    return apply;
  }

  function bySize(metric) {
    const values = island.slices.map((s) => ({ slice: s.name, examples: s.examples, value: s.metrics[metric][0], low: s.metrics[metric][1], high: s.metrics[metric][2],
      kind: s.failed ? "fails a gate" : s.few ? "too few to say" : "slice" })).filter((s) => s.value !== null);
    const overall = island.overall[metric][0];
    const title = island.titles[metric];
    const tooltip = [{ field: "slice" }, { field: "examples", format: "," }, { field: "value", title, format: ".4f" }, { field: "low", format: ".4f" }, { field: "high", format: ".4f" }];
    const said = values.filter((s) => s.kind !== "too few to say");
    const bounds = (said.length ? said : values).flatMap((s) => [s.low ?? s.value, s.high ?? s.value]).concat(overall);
    const domain = [Math.min(...bounds), Math.max(...bounds)]; // what too small slices might be is left out of the frame
    const scale = { domain, nice: true, zero: false };
    const kinds = ["slice", "fails a gate", "too few to say"];
    const color = { field: "kind", type: "nominal", scale: { domain: kinds, range: ["#2f7de1", "#e5484d", "#8b949e"] } };
    const x = { field: "examples", ...number("examples in the slice", { scale: { type: "log", nice: true }, axis: { format: "~s" } }) };
    draw($("by-size"), {
      data: { values },
      layer: [
        { mark: { type: "rule", strokeDash: [4, 4], color: "#8b949e" }, data: { values: [{ overall }] }, encoding: { y: { field: "overall", type: "quantitative" } } },
        { mark: { type: "rule", opacity: 0.5, clip: true }, encoding: { x, y: { field: "low", ...number(title, { scale }) }, y2: { field: "high" }, color } },
        { mark: { type: "point", filled: true, size: 70, opacity: 0.9, clip: true }, encoding: { x, y: { field: "value", ...number(title, { scale }) }, tooltip, color,
          shape: { field: "kind", type: "nominal", scale: { domain: kinds, range: ["circle", "cross", "triangle-up"] } } } },
      ],
    });
  }

  // Neighbouring buckets as one, until each has positives enough to say where it is: [examples, positives, sum of scores].
  function joined(buckets) {
    const least = Math.max(10, buckets.reduce((sum, b) => sum + b[3], 0) / 15), found = [];
    let open = [0, 0, 0];
    for (const [, , count, positive, predicted] of buckets) {
      open = [open[0] + count, open[1] + positive, open[2] + predicted];
      if (open[1] >= least) { found.push(open); open = [0, 0, 0]; }
    }
    if (open[0]) found.push(found.length ? found.pop().map((v, i) => v + open[i]) : open);
    return found;
  }

  function curves(slice) {
    const drawn = island.curves[slice];
    if (!drawn) return;
    const known = island.models.filter((m) => drawn[m.name]);
    const domain = known.map((m) => m.title);
    const calibration = [], histogram = [], roc = [], pr = [];
    for (const { name, title } of known) {
      for (const [count, positive, predicted] of joined(drawn[name].buckets)) calibration.push({ series: title, score: predicted / count, share: positive / count, examples: count, positives: positive });
      for (const [low, high, count, positive] of drawn[name].buckets) {
        if (name === "candidate") for (const [label, n, from] of [["positive", positive, 0], ["negative", count - positive, positive]]) histogram.push({ low, high, label, examples: n, from, to: from + n });
      }
      for (const [threshold, tp, fp, tn, fn] of drawn[name].matrices) {
        if (tp + fn && fp + tn) roc.push({ series: title, threshold, fpr: fp / (fp + tn), tpr: tp / (tp + fn) });
        if (tp + fn && tp + fp) pr.push({ series: title, threshold, recall: tp / (tp + fn), precision: tp / (tp + fp) });
      }
    }
    const top = Math.max(1e-9, ...calibration.map((p) => Math.max(p.score, p.share)));
    const least = Math.min(...calibration.map((p) => Math.min(p.score, p.share)));
    const log = least > 0 && top / least > 20, buckets = drawn.candidate.buckets, wide = (b) => b[1] - b[0];
    const toTop = { scale: log ? { type: "log", domain: [least * 0.8, top * 1.2], nice: false } : { domain: [0, top], nice: true }, axis: { format: "~g", ...(log ? { tickCount: 4 } : {}) } };
    const unit = { scale: { domain: [0, 1] } };
    const byLog = buckets.length > 1 && buckets[0][0] > 0 && wide(buckets.at(-1)) > 3 * wide(buckets[0]);
    const diagonal = (end, start = 0) => ({ mark: { type: "line", strokeDash: [4, 4], color: "#8b949e" }, data: { values: [{ a: start, b: start }, { a: end, b: end }] }, encoding: { x: { field: "a", type: "quantitative" }, y: { field: "b", type: "quantitative" } } });
    draw($("calibration"), { data: { values: calibration }, layer: [diagonal(top, log ? least : 0), { mark: { type: "line", point: { size: 40 } }, encoding: { x: { field: "score", ...number("mean score", toTop) }, y: { field: "share", ...number("share of positives", toTop) }, color: color(domain), tooltip: [{ field: "series" }, { field: "score", format: ".3f" }, { field: "share", format: ".3f" }, { field: "examples", format: "," }, { field: "positives", format: "," }] } }] });
    draw($("histogram"), { data: { values: histogram }, mark: { type: "rect", stroke: "var(--paper)", strokeWidth: 0.5 }, encoding: { x: { field: "low", ...(byLog ? number("score", { scale: { type: "log", nice: false }, axis: { format: "~g", tickCount: 4 } }) : number("score")) }, x2: { field: "high" }, y: { field: "from", ...number("examples") }, y2: { field: "to" }, color: { field: "label", type: "nominal", scale: { domain: ["positive", "negative"], range: ["#2f7de1", "#9aa3ad"] }, legend: {} }, tooltip: [{ field: "low", format: ".3f" }, { field: "high", format: ".3f" }, { field: "label" }, { field: "examples", format: "," }] } });
    draw($("roc"), { data: { values: roc }, layer: [diagonal(1), { mark: "line", encoding: { x: { field: "fpr", ...number("false positive rate", unit) }, y: { field: "tpr", ...number("true positive rate", unit) }, order: { field: "fpr" }, color: color(domain) } }] });
    draw($("pr"), { data: { values: pr }, mark: "line", encoding: { x: { field: "recall", ...number("recall", unit) }, y: { field: "precision", ...number("precision", unit) }, order: { field: "recall" }, color: color(domain) } });
    const table = $("calibration-table"), format = (v, digits = 4) => v === null || Number.isNaN(v) ? "–" : v.toFixed(digits);
    table.caption.firstElementChild.textContent = `This run's model on ${slice === "all" ? "all examples" : slice}.`;
    table.tBodies[0].replaceChildren(...drawn.candidate.buckets.filter((b) => b[2]).map((b) => {
      const row = document.createElement("tr"), digits = byLog ? 6 : 4;
      for (const text of [format(b[0], digits), format(b[1], digits), format(b[2], 0), format(b[4] / b[2], digits), format(b[3] / b[2], digits)]) { const cell = row.insertCell(); cell.className = "r"; cell.textContent = text; }
      return row;
    }));
  }

  function distribution(element) {
    const feature = island.features[Number(element.dataset.index)];
    const sets = ["train", "eval", "last"].filter((s) => feature.sets[s]);
    const domain = sets.map((s) => s === "last" ? "last run" : s);
    if (feature.kind === "text") {
      const first = feature.sets[sets[0]].top ?? [];
      const order = first.slice(0, 8).map(([value]) => value);
      const values = sets.flatMap((s, i) => (feature.sets[s].top ?? []).filter(([value]) => order.includes(value)).map(([value, n]) => ({ series: domain[i], value, share: n / feature.sets[s].present })));
      draw(element, { data: { values }, height: order.length * (sets.length * 5 + 4), mark: { type: "bar" }, encoding: { y: { field: "value", type: "nominal", sort: order, title: null, axis: { labelLimit: 110 } }, yOffset: { field: "series", sort: domain }, x: { field: "share", ...number("per row with a value", { axis: { format: "~%", tickCount: 4 } }) }, color: color(domain), tooltip: [{ field: "value" }, { field: "series" }, { field: "share", format: ".2%" }] } });
    } else {
      const values = sets.flatMap((s, i) => {
        const buckets = feature.sets[s].buckets ?? [], total = buckets.reduce((sum, b) => sum + b[2], 0) || 1;
        const steps = buckets.map(([low, , n]) => ({ series: domain[i], at: low, share: n / total }));
        if (buckets.length) steps.push({ series: domain[i], at: buckets.at(-1)[1], share: buckets.at(-1)[2] / total });
        return steps;
      });
      const large = values.some((v) => Math.abs(v.at) >= 1e5);
      draw(element, { data: { values }, mark: { type: "line", interpolate: "step-after" }, encoding: { x: { field: "at", ...number(null, { scale: { zero: false, nice: false }, axis: { tickCount: 5, ...(large ? { format: "~s" } : { format: ".6~g" }) } }) }, y: { field: "share", ...number("share in its tenth", { axis: { format: "~%" } }) }, color: color(domain) } });
    }
  }

  function epochs() {
    for (const [metric, title] of Object.entries(island.epoch_metrics)) {
      const values = island.epochs.flatMap((e) => ["train", "eval"].filter((s) => e[`${s}_${metric}`] !== undefined).map((s) => ({ epoch: e.epoch, series: s, value: e[`${s}_${metric}`] })));
      draw($(`epochs-${metric}`), { data: { values }, mark: { type: "line", point: true }, encoding: { x: { field: "epoch", type: "quantitative", axis: { tickMinStep: 1, format: "d" } }, y: { field: "value", ...number(title, { scale: { zero: false } }) }, color: color(["train", "eval"]), tooltip: [{ field: "series" }, { field: "epoch" }, { field: "value", format: ".4f" }] } });
    }
  }

  document.querySelectorAll("table:has(button[data-sort])").forEach(sortable);
  const table = $("slice-table");
  if (table) {
    const rows = [...table.tBodies[0].rows], columns = $("columns"), enough = $("enough");
    const apply = filterable(rows, $("filter"), $("shown"), "slices", (row) => (!columns.value || row.dataset.columns === columns.value) && !(enough.checked && "few" in row.dataset));
    columns.addEventListener("change", apply);
    enough.addEventListener("change", apply);
    const metric = $("metric");
    const overall = document.querySelector("p > [data-slice=all]");
    const choose = () => {
      table.dataset.metric = metric.value;
      for (const figure of overall.children) figure.hidden = !figure.classList.contains("m-" + metric.value.replace("@", "-at-"));
      bySize(metric.value);
    };
    metric.addEventListener("change", choose);
    choose();
    for (const button of table.querySelectorAll("button.pick")) button.addEventListener("click", () => {
      $("curve-slice").value = button.closest("tr").dataset.slice;
      curves($("curve-slice").value);
      $("curves-title").scrollIntoView();
    });
  }
  if ($("curve-slice")) {
    $("curve-slice").addEventListener("change", (event) => curves(event.target.value));
    curves($("curve-slice").value);
  }
  if ($("feature-table")) filterable([...document.querySelectorAll("tr[data-feature], figure[data-feature]")], $("feature-filter"), $("features-shown"), "columns");
  // Distributions are drawn when they come near the screen, or all at once for paper.
  const waiting = new Set(document.querySelectorAll(".distribution"));
  const now = (element) => { if (waiting.delete(element)) distribution(element); };
  const seen = new IntersectionObserver((entries) => { for (const entry of entries) if (entry.isIntersecting) now(entry.target); }, { rootMargin: "400px" });
  waiting.forEach((element) => seen.observe(element));
  addEventListener("beforeprint", () => [...waiting].forEach(now));
  if (island.epochs.length > 1) epochs();
  say();
})();
