// Collects images that are chosen, dropped or pasted, uploads them, and shows how far that is.
const form = document.getElementById("upload");
const input = document.getElementById("choose");
const list = document.getElementById("chosen");
const said = document.getElementById("said");
const button = document.getElementById("judge");
const most = {{ {"files": limits.max_files, "file": limits.max_file_bytes, "request": limits.max_request_bytes} | tojson }};
let chosen = [];

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function say(text) {
  said.textContent = text;
}

function add(files) {
  for (const file of files) chosen.push({ file, name: file.name || "pasted image" });
  show();
}

function show() {
  for (const image of list.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  list.replaceChildren(...chosen.map(row));
  list.hidden = chosen.length === 0;
  const total = chosen.reduce((sum, { file }) => sum + file.size, 0);
  const large = chosen.filter(({ file }) => file.size > most.file).length;
  let problem = "";
  if (chosen.length > most.files) problem = `At most ${most.files} images can be judged together.`;
  else if (large) problem = `${large === 1 ? "1 image is" : `${large} images are`} larger than ${size(most.file)}.`;
  else if (total > most.request) problem = `Together they are larger than ${size(most.request)}.`;
  button.disabled = problem !== "" || chosen.length === 0;
  say(problem || (chosen.length ? `${chosen.length === 1 ? "1 image" : `${chosen.length} images`}, ${size(total)}` : ""));
}

function row(entry) {
  const item = document.createElement("li");
  const picture = document.createElement("img");
  picture.alt = "";
  picture.src = URL.createObjectURL(entry.file);
  picture.addEventListener("error", () => {
    const none = document.createElement("span");
    none.className = "none";
    picture.replaceWith(none);
  });
  const words = document.createElement("div");
  const name = document.createElement("bdi");
  name.textContent = entry.name;
  const facts = document.createElement("small");
  facts.textContent = size(entry.file.size);
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", `Upload of ${entry.name}`);
  bar.value = 0;
  bar.hidden = true;
  words.append(name, facts, bar);
  const remove = document.createElement("button");
  remove.type = "button";
  remove.textContent = "Remove";
  remove.setAttribute("aria-label", `Remove ${entry.name}`);
  remove.addEventListener("click", () => {
    const place = chosen.indexOf(entry);
    chosen.splice(place, 1);
    show();
    (list.children[Math.min(place, chosen.length - 1)]?.querySelector("button") ?? input).focus();
  });
  item.append(picture, words, remove);
  entry.bar = bar;
  entry.remove = remove;
  return item;
}

function busy(is) {
  button.disabled = input.disabled = is;
  for (const { bar, remove } of chosen) {
    bar.hidden = !is;
    remove.disabled = is;
  }
}

function send() {
  const body = new FormData();
  for (const { file, name } of chosen) body.append("files", file, name);
  if (form.elements.detector) body.append("detector", form.elements.detector.value);
  const request = new XMLHttpRequest();
  const since = performance.now();
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    let rest = loaded;
    for (const { file, bar } of chosen) {
      bar.value = file.size ? Math.min(1, Math.max(0, rest / file.size)) : 1;
      rest -= file.size;
    }
    const seconds = Math.ceil(((performance.now() - since) / 1000) * (total / loaded - 1));
    say(`${size(loaded)} of ${size(total)} are uploaded${seconds > 1 ? `, about ${seconds} s left` : ""}`);
  });
  request.addEventListener("load", () => {
    const answer = JSON.parse(request.responseText);
    if (request.status === 202) location.assign(`/jobs/${answer.id}`);
    else failed(`${answer.title}: ${answer.detail}`);
  });
  request.addEventListener("error", () => failed("The server could not be reached, or has refused the upload."));
  request.open("POST", "/api/jobs");
  request.send(body);
}

function failed(text) {
  busy(false);
  say(text);
}

input.addEventListener("change", () => {
  add(input.files);
  input.value = "";
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  busy(true);
  say("The upload begins.");
  send();
});
document.addEventListener("paste", ({ clipboardData }) => add(clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (relatedTarget === null) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  add(event.dataTransfer.files);
});
window.addEventListener("pageshow", () => busy(false) || show());
input.required = false;
document.getElementById("ways").hidden = false;
show();
