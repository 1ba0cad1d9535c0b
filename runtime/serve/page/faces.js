// The portraits to choose from: a row of round pictures, and the visitor's own.
import { requireSize, upload } from "./api.js";

export class Faces {
  // `onChoose` is told {id, name, url} of each choice, `onProblem` a sentence.
  constructor(list, add, file, onChoose, onProblem) {
    this.list = list;
    this.add = add;
    this.file = file;
    this.onChoose = onChoose;
    this.onProblem = onProblem;
    file.addEventListener("change", () => file.files[0] && this.take(file.files[0]));
    list.addEventListener("keydown", (event) => this.step(event));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
    });
  }

  // With a dispatcher nobody knows yet which box will take a picture: it stays here until then.
  show({ portraits, upload_bytes: most, dispatcher }) {
    this.most = most;
    this.stays = Boolean(dispatcher);
    portraits.forEach((portrait) => this.append(portrait));
    this.choose(portraits[0]);
  }

  append(portrait) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "face";
    button.dataset.id = portrait.id;
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", portrait.name);
    button.title = portrait.name;
    const image = new Image();
    image.src = portrait.url;
    image.alt = "";
    button.append(image);
    button.addEventListener("click", () => this.choose(portrait));
    this.list.append(button);
  }

  choose(portrait) {
    for (const face of this.list.children) {
      const chosen = face.dataset.id === portrait.id;
      face.setAttribute("aria-checked", String(chosen));
      face.tabIndex = chosen ? 0 : -1;
    }
    this.onChoose(portrait);
  }

  // As radio buttons everywhere: the arrows choose.
  step(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const faces = [...this.list.children];
    const next = faces[(faces.indexOf(document.activeElement) + step + faces.length) % faces.length];
    next.click();
    next.focus();
    event.preventDefault();
  }

  async take(file) {
    this.add.classList.add("waiting");
    try {
      requireSize(file, this.most);
      const portrait = this.stays ? kept(file) : await upload(file);
      this.append(portrait);
      this.list.lastElementChild.scrollIntoView({ block: "nearest", inline: "nearest" });
      this.choose(portrait);
      if (portrait.warning) this.onProblem(portrait.warning);
    } catch (error) {
      this.onProblem(error.message);
    } finally {
      this.add.classList.remove("waiting");
      this.file.value = "";
    }
  }
}

function kept(file) {
  const url = URL.createObjectURL(file);
  return { id: url, name: "Your picture", url, file };
}
