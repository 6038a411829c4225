// Shows the progress of the job of this page, and loads the results when it is done.
const words = { waiting: "waits", judging: "is being judged" };
const rows = document.getElementById("files").children;
const left = document.getElementById("left");
const stream = new EventSource(`/api${location.pathname}/events`);

stream.addEventListener("status", ({ data }) => {
  const job = JSON.parse(data);
  const state = `${job.num_done} of ${job.num_files} images are judged`;
  document.getElementById("state").textContent = state;
  document.title = document.title.replace(/^.*(?= – )/, state);
  document.getElementById("all").value = job.num_done;
  left.textContent = job.seconds_left ? `About ${Math.ceil(job.seconds_left)} s left.` : "";
  for (const [place, { state, verdict }] of job.files.entries()) {
    const shown = rows[place].lastElementChild;
    shown.textContent = verdict ? verdict.title : words[state];
    shown.dataset.kind = verdict?.decision ?? "";
  }
  if (job.state === "done") {
    stream.close();
    location.reload();
  }
});
stream.addEventListener("error", () => {
  if (stream.readyState === EventSource.CLOSED) left.textContent = "This job was deleted, or the server was stopped.";
});
