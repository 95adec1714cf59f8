// A map of sentences: hover, tap, arrow keys or search show a sentence and its nearest ones.
for (const box of document.querySelectorAll(".map")) {
  const svg = box.querySelector("svg"), shown = box.querySelector(".shown");
  const points = [...svg.querySelectorAll("circle")], field = box.querySelector("input");
  const texts = JSON.parse(box.querySelector("template").content.textContent);
  let chosen = -1;
  const line = (tag, text, note = "") => {
    const part = document.createElement(tag), isolated = document.createElement("bdi");
    isolated.textContent = text;
    part.append(isolated, note);
    return part;
  };
  const show = (index) => {
    if (index === chosen) return;
    if (chosen >= 0) points[chosen].classList.remove("chosen");
    chosen = index;
    points[index].classList.add("chosen");
    const list = document.createElement("ol");
    for (const [text, cosine] of texts[index][1]) list.append(line("li", text, " (" + cosine + ")"));
    shown.replaceChildren(line("b", texts[index][0]), list);
  };
  const nearest = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    let best = -1, least = 14;
    points.forEach((point, index) => {
      const far = Math.hypot(point.cx.baseVal.value - at.x, point.cy.baseVal.value - at.y);
      if (far < least) [best, least] = [index, far];
    });
    if (best >= 0) show(best);
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show((Math.max(chosen, step < 0 ? 0 : -1) + step + points.length) % points.length);
  });
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    const hits = points.map((_, index) => wanted && texts[index][0].toLowerCase().includes(wanted));
    points.forEach((point, index) => point.classList.toggle("hit", Boolean(hits[index])));
    const first = hits.indexOf(true);
    if (first >= 0) show(first);
    box.querySelector("output").textContent = wanted ? hits.filter(Boolean).length + " found" : "";
  });
  box.classList.add("live");
}
