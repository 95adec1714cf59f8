// Search in the index.

import { request } from "./api.js";
import { byId, cosineText, element, onSubmit, userText } from "./dom.js";

export function startSearch() {
  const list = byId("hits");
  onSubmit(byId("search-form"), list, async (signal) => {
    const query = byId("query").value.toWellFormed();
    const limit = byId("threshold").value;
    const began = performance.now();
    const body = { query: [query], top_k: Number(byId("top-k").value) };
    if (limit) body.threshold = Number(limit);
    const { hits } = (await request("v1/search", body, signal)).data[0];
    const took = Math.round(performance.now() - began);
    list.replaceChildren(...hits.map(hitItem));
    if (!hits.length) return "Nothing found. Lower the minimum cosine, or ask differently.";
    return `${hits.length} ${hits.length === 1 ? "result" : "results"} in ${took} ms`;
  });
}

function hitItem(hit) {
  const score = element("span", { class: "score" }, cosineText(hit.cosine));
  score.style.setProperty("--share", Math.max(0, hit.cosine));
  const facts = Object.entries({ id: hit.id, ...hit.metadata }).map(([name, value]) =>
    element("span", {}, userText("bdi", name), " ", userText("bdi", shown(value))),
  );
  return element(
    "li",
    {},
    score,
    element("div", {}, userText("p", hit.text), element("p", { class: "facts" }, ...facts)),
  );
}

const shown = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
