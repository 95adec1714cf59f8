// Elements and forms. All text goes in by textContent, never as markup.

export const byId = (id) => document.getElementById(id);

/** Create an HTML element with children: elements or texts. */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** Create an SVG element. */
export function drawing(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Create an element for text of any direction, kept apart from its neighbours. */
export const userText = (tag, text, attributes = {}) =>
  element(tag, { dir: "auto", ...attributes }, text);

/** Return the lines of a text area that are not blank, without lone surrogates. */
export const linesOf = (area) =>
  area.value.toWellFormed().split("\n").map((line) => line.trim()).filter(Boolean);

/** Format a cosine with two digits. */
export const cosineText = (value) => value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");

/**
 * Run work when a form is submitted; a later submission ends an earlier one.
 *
 * @param {HTMLFormElement} form with a progress bar, a status line and an alert
 * @param {Element} result emptied when the work fails
 * @param {(signal: AbortSignal, report: (share: number) => void) => Promise<string>} work
 *   returns the text of the status line
 */
export function onSubmit(form, result, work) {
  const bar = form.querySelector("progress");
  const status = form.querySelector("[role=status]");
  const alert = form.querySelector("[role=alert]");
  let current = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    current?.abort();
    const mine = (current = new AbortController());
    alert.textContent = "";
    status.textContent = "Working …";
    bar.removeAttribute("value");
    bar.hidden = false;
    result.setAttribute("aria-busy", "true");
    try {
      const text = await work(mine.signal, (share) => (bar.value = share));
      if (!mine.signal.aborted) status.textContent = text;
    } catch (error) {
      if (mine.signal.aborted) return;
      status.textContent = "";
      result.replaceChildren();
      alert.textContent = error.message;
      if (error.status === 401) document.dispatchEvent(new Event("key-needed"));
    } finally {
      if (current === mine) {
        bar.hidden = true;
        result.removeAttribute("aria-busy");
      }
    }
  });
}
