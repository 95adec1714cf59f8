// Similarity of sentences as a heat map.

import { request } from "./api.js";
import { byId, cosineText, element, linesOf, onSubmit, userText } from "./dom.js";

// A table with more sentences would be slow to draw and impossible to read.
const MOST = 60;

export function startSimilarity() {
  const result = byId("heat");
  onSubmit(byId("similarity-form"), result, async (signal) => {
    const texts = linesOf(byId("pairs"));
    if (texts.length < 2) throw new Error("Give at least two sentences, one per line.");
    if (texts.length > MOST) {
      throw new Error(`The page draws at most ${MOST} sentences, and these are ${texts.length}.`);
    }
    const { similarity } = await request("v1/similarity", { texts }, signal);
    result.replaceChildren(heatMap(texts, similarity), legend());
    return extremes(similarity);
  });
}

function heatMap(texts, similarity) {
  const numbers = texts.map((_, number) =>
    userText("th", String(number + 1), { scope: "col", title: texts[number] }),
  );
  const rows = similarity.map((row, number) => {
    const name = userText("span", texts[number]);
    const head = element("th", { scope: "row" }, element("b", {}, String(number + 1)), name);
    return element("tr", {}, head, ...row.map(heatCell));
  });
  const table = element(
    "table",
    { class: "heat" },
    element("caption", {}, "Cosine of each pair of sentences"),
    element("thead", {}, element("tr", {}, element("td"), ...numbers)),
    element("tbody", {}, ...rows),
  );
  // Focus lets the keyboard scroll a wide table.
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Heat map" }, table);
}

function heatCell(cosine) {
  const cell = element("td", {}, cosineText(cosine));
  const share = Math.min(1, Math.max(0, cosine));
  cell.style.setProperty("--share", share);
  // At this share black and white text are equally readable on the colours of both schemes.
  if (share > 0.65) cell.className = "strong";
  return cell;
}

function legend() {
  const scale = element("span", { class: "scale", "aria-hidden": "true" });
  return element("p", { class: "legend" }, "0 or less", scale, "1");
}

function extremes(similarity) {
  const pairs = similarity.flatMap((row, left) =>
    row.slice(0, left).map((cosine, right) => ({ cosine, name: `${right + 1} and ${left + 1}` })),
  );
  pairs.sort((a, b) => b.cosine - a.cosine);
  const [first, last] = [pairs[0], pairs.at(-1)];
  const closest = `Most similar: ${first.name} (${cosineText(first.cosine)}).`;
  if (pairs.length === 1) return `Cosine: ${cosineText(first.cosine)}.`;
  return `${closest} Least similar: ${last.name} (${cosineText(last.cosine)}).`;
}
