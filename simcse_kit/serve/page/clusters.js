// Clusters of sentences: a map and lists.

import { request } from "./api.js";
import { byId, drawing, element, linesOf, onSubmit, userText } from "./dom.js";
import { bestClusters, kMeans, normalized, principalPoints } from "./math.js";

const MOST_SENTENCES = 500;
const MOST_CLUSTERS = 8; // as many as there are colours
const PER_REQUEST = 32;
const [WIDTH, HEIGHT, MARGIN] = [640, 440, 28];

/** Set up the form; `server.model` is the name that requests need. */
export function startClusters(server) {
  const result = byId("map");
  onSubmit(byId("clusters-form"), result, async (signal, report) => {
    const texts = [...new Set(linesOf(byId("sentences")))];
    if (texts.length < 3) throw new Error("Give at least three different sentences, one per line.");
    if (texts.length > MOST_SENTENCES) {
      throw new Error(
        `The page draws at most ${MOST_SENTENCES} sentences, and these are ${texts.length}.`,
      );
    }
    const wanted = Number(byId("count").value);
    if (wanted > texts.length) {
      throw new Error(`${texts.length} different sentences cannot form ${wanted} clusters.`);
    }
    const rows = normalized(await vectorsOf(texts, server.model, signal, report));
    await new Promise((resolve) => setTimeout(resolve)); // the full progress bar is drawn first
    const labels = inOrder(wanted ? kMeans(rows, wanted) : bestClusters(rows, MOST_CLUSTERS));
    const { points, share } = principalPoints(rows);
    const groups = members(labels);
    result.replaceChildren(...map(texts, points, labels), lists(texts, groups));
    const clusters = groups.length === 1 ? "1 cluster" : `${groups.length} clusters`;
    const percent = Math.round(100 * share);
    return `${texts.length} sentences in ${clusters}; the map keeps ${percent}\u00a0% of the variance.`;
  });
}

async function vectorsOf(texts, model, signal, report) {
  const vectors = [];
  while (vectors.length < texts.length) {
    const input = texts.slice(vectors.length, vectors.length + PER_REQUEST);
    const { data } = await request("v1/embeddings", { model, input }, signal);
    vectors.push(...data.map((row) => row.embedding));
    report(vectors.length / texts.length);
  }
  return vectors;
}

/** Number the clusters by their first sentences. */
function inOrder(labels) {
  const order = [...new Set(labels)];
  return labels.map((label) => order.indexOf(label));
}

function members(labels) {
  const groups = [];
  labels.forEach((label, n) => (groups[label] ??= []).push(n));
  return groups;
}

function map(texts, points, labels) {
  const places = placed(points);
  const dots = places.map(([x, y], n) =>
    drawing("circle", { cx: x, cy: y, r: 7, class: `group-${labels[n] + 1}` }),
  );
  const names = members(labels).map((group, label) => {
    const [x, y] = [0, 1].map((axis) => group.reduce((sum, n) => sum + places[n][axis], 0) / group.length);
    return drawing("text", { x, y, class: `group-${label + 1}` }, String(label + 1));
  });
  const svg = drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: 0, role: "img" }, ...names, ...dots);
  svg.setAttribute("aria-label", "Map of the sentences. Arrow keys go from one to the next.");
  const shown = element("p", { class: "shown", role: "status" }, "Point at a sentence.");
  let chosen = -1;
  const choose = (n) => {
    if (n === chosen) return;
    dots[chosen]?.classList.remove("chosen");
    chosen = n;
    dots[n].classList.add("chosen");
    shown.replaceChildren(badge(labels[n]), userText("bdi", texts[n]));
  };
  const point = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const far = places.map(([x, y]) => Math.hypot(x - at.x, y - at.y));
    const least = Math.min(...far);
    if (least < 24) choose(far.indexOf(least));
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose((Math.max(chosen, step < 0 ? 0 : -1) + step + dots.length) % dots.length);
  });
  return [svg, shown];
}

/** Scale points into the drawing, with the same scale for both axes. */
function placed(points) {
  const [low, high] = [Math.min, Math.max].map((pick) => [0, 1].map((axis) => pick(...points.map((p) => p[axis]))));
  const room = [WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN];
  const scale = Math.min(...[0, 1].map((axis) => room[axis] / (high[axis] - low[axis] || 1e-9)));
  return points.map(([x, y]) => [
    WIDTH / 2 + (x - (low[0] + high[0]) / 2) * scale,
    HEIGHT / 2 - (y - (low[1] + high[1]) / 2) * scale,
  ]);
}

const badge = (label) => element("b", { class: `badge group-${label + 1}` }, String(label + 1));

function lists(texts, groups) {
  const cards = groups.map((group, label) => {
    const items = group.map((n) => userText("li", texts[n]));
    const title = element("h3", {}, badge(label), group.length === 1 ? "1 sentence" : `${group.length} sentences`);
    return element("div", {}, title, element("ul", {}, ...items));
  });
  return element("div", { class: "groups" }, ...cards);
}
