// Lightbox: enlarged pictures with zoom, an adjustable overlay and the class below the pointer.

const rows = [...document.querySelectorAll(".image")].map((row) => [...row.querySelectorAll(".tile")]);

// Put the photo below each error map, so that the page contains it once.
rows.forEach((tiles) => {
  const photo = tiles[0].querySelector("img").src;
  tiles.filter((tile) => tile.dataset.kind === "error").forEach((tile) => {
    const under = Object.assign(new Image(), { src: photo, alt: "", className: "under dim" });
    tile.prepend(under);
  });
});

function makeLightbox(dialog) {
  const find = (selector) => dialog.querySelector(selector);
  const [stage, stack, under, over, slider] = [".stage", ".stack", ".under", ".over", "input"].map(find);
  let at = { row: 0, column: 0 };
  let zoom = { scale: 1, x: 0, y: 0 };
  let size = { width: 1, height: 1 };
  let names = new Map();
  let maps = [];

  const tile = () => rows[at.row][at.column];
  const picture = (one) => one.querySelector("img:not(.under)");

  function place() {
    Object.assign(stack.style, { width: `${size.width}px`, height: `${size.height}px`,
      transform: `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})` });
  }

  const fitting = () => Math.min(stage.clientWidth / size.width, stage.clientHeight / size.height);

  function fit() {
    const scale = fitting();
    zoom = { scale, x: (stage.clientWidth - scale * size.width) / 2, y: (stage.clientHeight - scale * size.height) / 2 };
    place();
  }

  // Zoom by a factor around a point of the stage.
  function zoomAt(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const scale = Math.min(40 * fitting(), Math.max(fitting() / 4, zoom.scale * factor));
    const ratio = scale / zoom.scale;
    zoom = { scale, x: x - ratio * (x - zoom.x), y: y - ratio * (y - zoom.y) };
    place();
  }

  function paint() {
    const kind = tile().dataset.kind;
    over.style.opacity = kind === "photo" ? 0 : slider.value / 100;
    slider.disabled = kind === "photo";
    under.classList.toggle("dim", kind === "error");
  }

  // Return the pixels of a picture, from which the class below the pointer is read.
  function readPixels(image) {
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  // Show a picture. The zoom is kept among the pictures of an image, so that they can be compared.
  async function show(row, column) {
    const sameImage = dialog.open && row === at.row;
    at = { row, column };
    const tiles = rows[row];
    const image = picture(tile());
    const section = tile().closest("section");
    under.src = picture(tiles[0]).src;
    over.src = image.src;
    const caption = tile().closest("figure").querySelector("figcaption").textContent.trim();
    find(".caption").textContent = `${tile().closest(".image").querySelector(".kicker").textContent}: ${caption}`;
    stage.setAttribute("aria-label", image.alt.trim());
    if (!dialog.open) dialog.showModal();
    await Promise.all([under.decode(), over.decode()]);
    size = { width: under.naturalWidth, height: under.naturalHeight };
    const [classes, errors] = section.querySelectorAll(".legend");
    const legend = tile().dataset.kind === "error" ? errors : classes;
    find(".legend").replaceChildren(...[...legend.children].map((item) => item.cloneNode(true)));
    names = new Map([...classes.children].map((item) => [item.dataset.color, item.textContent]));
    if (sameImage) place(); else fit();
    const own = tile().dataset.kind === "error" ? tiles[column - 1] : tile().dataset.kind === "prediction" ? tile() : null;
    const shown = [["ground truth", tiles[1]], ...(own ? [["prediction", own]] : [])];
    maps = shown.map(([name, one]) => [name, readPixels(picture(one))]);
    find(".class").textContent = "";
    paint();
  }

  function nameAt(pixels, x, y) {
    if (x < 0 || y < 0 || x >= pixels.width || y >= pixels.height) return "";
    const start = 4 * (y * pixels.width + x);
    const color = [...pixels.data.slice(start, start + 3)].map((value) => value.toString(16).padStart(2, "0")).join("");
    return names.get(`#${color}`) ?? "ignored";
  }

  function describe(event) {
    const box = stage.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left - zoom.x) / zoom.scale);
    const y = Math.floor((event.clientY - box.top - zoom.y) / zoom.scale);
    const texts = maps.map(([name, pixels]) => [name, nameAt(pixels, x, y)]).filter(([, text]) => text);
    find(".class").textContent = texts.map(([name, text]) => `${name}: ${text}`).join("; ");
  }

  function step(columns) {
    const count = rows[at.row].length;
    return show(at.row, (at.column + columns + count) % count);
  }

  function stepRow(count) {
    const row = (at.row + count + rows.length) % rows.length;
    return show(row, Math.min(at.column, rows[row].length - 1));
  }

  const acts = { in: () => zoomAt(1.4), out: () => zoomAt(1 / 1.4), fit, previous: () => step(-1), next: () => step(1),
    close: () => dialog.close() };
  const keys = { "+": acts.in, "=": acts.in, "-": acts.out, 0: fit, ArrowUp: () => stepRow(-1), ArrowDown: () => stepRow(1),
    ArrowLeft: acts.previous, ArrowRight: acts.next };

  rows.forEach((tiles, row) => tiles.forEach((one, column) => one.addEventListener("click", () => show(row, column))));
  dialog.querySelectorAll("[data-act]").forEach((button) => button.addEventListener("click", () => acts[button.dataset.act]()));
  dialog.addEventListener("keydown", (event) => {
    if (!keys[event.key] || (event.target === slider && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    keys[event.key]();
  });
  dialog.addEventListener("close", () => tile().focus());
  slider.addEventListener("input", paint);
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoomAt(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => stage.setPointerCapture(event.pointerId));
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) {
      zoom.x += event.movementX;
      zoom.y += event.movementY;
      place();
    }
    describe(event);
  });
  addEventListener("resize", () => { if (dialog.open) fit(); });
}

if (rows.length) makeLightbox(document.getElementById("lightbox"));
