// The page: its tabs, the state of the server and the API key.

import { request, setKey } from "./api.js";
import { startClusters } from "./clusters.js";
import { byId } from "./dom.js";
import { startSearch } from "./search.js";
import { startSimilarity } from "./similarity.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const server = { model: "" };

function open(tab, focus = false) {
  for (const each of tabs) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", chosen);
    each.tabIndex = chosen ? 0 : -1;
    byId(each.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
}

for (const [number, tab] of tabs.entries()) {
  tab.addEventListener("click", () => {
    open(tab);
    history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  });
  tab.addEventListener("keydown", (event) => {
    const last = tabs.length - 1;
    const next = { ArrowRight: number + 1, ArrowLeft: number - 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    open(tabs[(next + tabs.length) % tabs.length], true);
  });
}

function showExamples() {
  const base = new URL("v1", document.baseURI).href;
  const body = JSON.stringify({ model: server.model, input: "A dog runs." });
  const key = byId("key-form").hidden ? "" : " \\\n  -H 'Authorization: Bearer KEY'";
  byId("curl").textContent =
    `curl ${base}/embeddings${key} \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
  byId("python").textContent =
    "from openai import OpenAI\n\n" +
    `client = OpenAI(base_url=${JSON.stringify(base)}, api_key="KEY")\n` +
    `answer = client.embeddings.create(model=${JSON.stringify(server.model)}, input="A dog runs.")\n` +
    "vector = answer.data[0].embedding";
}

const keyForm = byId("key-form");
const keyAlert = keyForm.querySelector("[role=alert]");

function askForKey(message) {
  setKey("");
  keyForm.hidden = false;
  keyAlert.textContent = message;
  byId("key").focus();
}

/** Show the model's dimensions, which only requests with the key can read. */
async function showModel(index) {
  const card = (await request("v1/models")).data[0];
  const facts = [`${card.dimensions} dimensions`, `up to ${card.max_length} tokens`];
  facts.push(index === null ? "no index" : `index of ${index.toLocaleString("en")} texts`);
  byId("facts").textContent = facts.join(" · ");
}

async function connect(rejected) {
  try {
    const { model, index } = await request("health");
    server.model = model;
    byId("model").textContent = document.title = model;
    byId("no-index").hidden = index !== null;
    byId("search-form").hidden = index === null;
    if (!tabs.some((tab) => tab.hasAttribute("aria-selected"))) {
      const wanted = location.hash || (index === null ? "#similarity" : "#search");
      open(tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === wanted) ?? tabs[0]);
    }
    await showModel(index);
    keyAlert.textContent = "";
    byId("problem").textContent = "";
  } catch (error) {
    if (error.status === 401) {
      byId("facts").textContent = "an API key is needed";
      askForKey(rejected);
    } else {
      byId("facts").textContent = "";
      byId("problem").textContent = error.message;
      if (!tabs.some((tab) => tab.hasAttribute("aria-selected"))) open(tabs[0]);
    }
  }
  showExamples();
}

keyForm.addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = byId("key").value.trim();
  byId("key").value = "";
  if (!/^[\x21-\x7e]+$/.test(key)) {
    askForKey("A key has only printable ASCII characters and no spaces.");
    return;
  }
  setKey(key);
  await connect("The server refuses this key.");
  if (!keyAlert.textContent) keyForm.hidden = true;
});
document.addEventListener("key-needed", () => askForKey("The server wants its key."));

startSearch();
startSimilarity();
startClusters(server);
await connect("");
