// Shows, sorts and searches the images. Without it the page has all images, sorted by verdict.
const list = document.getElementById("list");
const controls = document.getElementById("controls");
const shown = document.getElementById("shown");
const images = [...list.children].map((element, place) => ({
  element,
  place,
  name: element.querySelector("h3").textContent,
  score: Number(element.dataset.score || -1),
}));
const orders = {
  "": (a, b) => a.place - b.place,
  score: (a, b) => b.score - a.score || a.place - b.place,
  name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
};
let order = "";

function update() {
  const given = new FormData(controls);
  const kinds = given.getAll("kind");
  const text = given.get("text").toLowerCase();
  let count = 0;
  for (const { element, name } of images) {
    const { kind, wrong } = element.dataset;
    const fits = kinds.includes(kind) && name.toLowerCase().includes(text) && (wrong !== "0" || !given.has("wrong"));
    element.hidden = !fits;
    count += fits;
  }
  if (given.get("order") !== order) {
    order = given.get("order");
    list.append(...[...images].sort(orders[order]).map(({ element }) => element));
  }
  shown.textContent = `${count} of ${images.length} images are shown`;
}

controls.addEventListener("input", update);
controls.addEventListener("submit", (event) => event.preventDefault());
controls.elements.details.addEventListener("click", ({ target }) => {
  const open = target.textContent.startsWith("Open");
  for (const fold of list.querySelectorAll("article:not([hidden]) details")) fold.open = open;
  target.textContent = open ? "Close all details" : "Open all details";
});
controls.hidden = false;
update();
