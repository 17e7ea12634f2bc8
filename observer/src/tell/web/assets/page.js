// Makes the page live: asks for itself as soon as there is something new, and changes only what differs, so that
// focus, scroll, open rows and a selection stay. Without this script the page is whole, and stands still.
"use strict";
(() => {
  const main = document.getElementById("main");
  if (!main) return;
  const live = document.getElementById("live");
  const served = main.hasAttribute("data-version");
  const PACE = 1000;
  const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

  // ---- times in the reader's own zone
  function localize(root) {
    for (const element of root.querySelectorAll("[data-at]")) {
      const at = new Date(1000 * Number(element.dataset.at));
      const step = Number(element.dataset.step);
      if (isNaN(at)) continue;
      if (step >= 86400) element.textContent = at.toLocaleDateString("en", { month: "short", day: "numeric" });
      else element.textContent = at.toLocaleTimeString("en", step < 60 ? { ...clock, second: "2-digit" } : clock);
    }
    for (const element of root.querySelectorAll("[data-zone]")) {
      element.textContent = "Times are local (" + Intl.DateTimeFormat().resolvedOptions().timeZone + ").";
    }
  }

  // ---- change only what differs
  const keyOf = (node) => node.nodeType === 1 ? node.id || node.getAttribute("data-key") || null : null;
  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  function attributes(from, to) {
    for (const { name, value } of [...to.attributes]) {
      if (name === "open" && from.nodeName === "DETAILS") continue;
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    for (const { name } of [...from.attributes]) {
      if (name === "open" && from.nodeName === "DETAILS") continue;
      if (!to.hasAttribute(name)) from.removeAttribute(name);
    }
  }

  function morph(from, to) {
    if (from.nodeType !== 1) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    if (from.isEqualNode(to)) return;
    attributes(from, to);
    const keyed = new Map();
    for (const child of from.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
    let place = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      const key = keyOf(wanted);
      let found = null;
      if (key) {
        const known = keyed.get(key);
        if (known && same(known, wanted)) found = known;
      } else if (place && same(place, wanted)) {
        found = place;
      }
      if (!found) {
        from.insertBefore(document.importNode(wanted, true), place);
        continue;
      }
      if (found === place) place = place.nextSibling;
      else from.insertBefore(found, place);
      morph(found, wanted);
    }
    while (place) {
      const next = place.nextSibling;
      from.removeChild(place);
      place = next;
    }
  }

  // ---- stay up to date
  function state(word, text) {
    if (!live || live.dataset.state === word) return;
    live.hidden = false;
    live.dataset.state = word;
    live.textContent = text;
  }

  function selecting() {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && main.contains(selection.anchorNode);
  }

  function show(text) {
    const next = new DOMParser().parseFromString(text, "text/html");
    const wanted = next.getElementById("main");
    if (!wanted) return;
    localize(wanted);
    readout.hide();
    morph(main, wanted);
    if (document.title !== next.title) document.title = next.title;
    const icon = next.querySelector("link[rel=stylesheet]"), own = document.querySelector("link[rel=stylesheet]");
    // Another observer answers: its page may need its own style and script.
    if (icon && own && icon.getAttribute("href") !== own.getAttribute("href")) location.reload();
  }

  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  const seen = () => new Promise((done) => {
    if (!document.hidden) return done();
    document.addEventListener("visibilitychange", done, { once: true });
  });

  let asked = null;
  async function follow() {
    let failures = 0;
    state("live", "live");
    for (;;) {
      await pause(failures ? Math.min(10000, PACE * 2 ** failures) : PACE);
      await seen();
      if (selecting() || readout.shown()) {
        if (selecting()) state("paused", "paused while you select");
        continue;
      }
      try {
        asked = new AbortController();
        const address = location.href.split("#")[0];
        const answer = await fetch(address, {
          headers: { "X-Observer-After": main.dataset.version }, cache: "no-store", signal: asked.signal,
        });
        if (answer.status !== 204) {
          const text = await answer.text();
          if (!answer.ok && answer.status !== 404) throw new Error("status " + answer.status);
          if (address === location.href.split("#")[0] && !selecting()) show(text);
        }
        failures = 0;
        state("live", "live");
      } catch (error) {
        if (error.name === "AbortError") continue;
        failures += 1;
        if (failures > 1) state("lost", "no answer from observer, last shown is old");
      }
    }
  }

  // Another range: the same page, without losing the place.
  document.addEventListener("click", async (event) => {
    const link = event.target.closest && event.target.closest("a[data-range]");
    if (!link || !served || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    try {
      const answer = await fetch(link.href, { cache: "no-store" });
      if (!answer.ok) throw new Error("status " + answer.status);
      const text = await answer.text();
      history.replaceState(null, "", link.href);
      if (asked) asked.abort();
      show(text);
    } catch {
      location.href = link.href;
    }
  });

  // ---- an area or its name leads to the stack, and opens it
  function reveal(hash, focus) {
    const target = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
    if (!target) return;
    for (let node = target; node; node = node.parentElement) if (node.nodeName === "DETAILS") node.open = true;
    target.scrollIntoView({ block: "nearest" });
    if (focus) target.focus({ preventScroll: true });
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest('a[href^="#"], svg a');
    const hash = link && link.getAttribute("href");
    if (hash && hash.startsWith("#")) setTimeout(() => reveal(hash, true));
  });
  addEventListener("hashchange", () => reveal(location.hash, false));

  // ---- what was when, under the pointer
  const readout = (() => {
    let box = null, line = null, shownFor = null;
    const hide = () => {
      if (box) box.hidden = true;
      if (line) line.remove();
      line = shownFor = null;
    };
    const row = (name, value) => {
      const div = document.createElement("div");
      for (const text of [name, value]) {
        const span = document.createElement("span");
        span.textContent = text;
        div.append(span);
      }
      return div;
    };
    const bytes = (value) => {
      const units = ["B", "KiB", "MiB", "GiB", "TiB"];
      let unit = 0;
      while (value >= 1023.5 && unit < 4) { value /= 1024; unit += 1; }
      return value.toFixed(unit === 0 || value >= 99.95 ? 0 : 1) + " " + units[unit];
    };
    const move = (event) => {
      const svg = event.target.closest && event.target.closest("svg.chart");
      const figure = svg && svg.closest("figure");
      const source = figure && figure.querySelector("[data-readout]");
      if (!source || event.pointerType === "touch") return hide();
      let data;
      try { data = JSON.parse(source.dataset.readout); } catch { return hide(); }
      const view = svg.viewBox.baseVal, area = svg.getBoundingClientRect();
      const grid = svg.querySelector("line.grid, .grid");
      const inner = grid ? grid.getBBox() : null;
      if (!inner || !inner.width) return hide();
      const x = (event.clientX - area.left) / area.width * view.width;
      const share = (x - inner.x) / inner.width;
      if (share < 0 || share > 1) return hide();
      const from = data.at[0], to = data.at[data.at.length - 1];
      const wanted = from + share * (to - from);
      let nearest = 0;
      data.at.forEach((at, place) => { if (Math.abs(at - wanted) < Math.abs(data.at[nearest] - wanted)) nearest = place; });
      if (!box) {
        box = document.createElement("div");
        box.className = "readout";
        box.setAttribute("aria-hidden", "true");
      }
      if (box.parentNode !== figure) figure.append(box);
      const when = document.createElement("b");
      when.textContent = new Date(1000 * data.at[nearest]).toLocaleTimeString("en", { ...clock, second: "2-digit" });
      const rows = [when, row("resident", bytes(data.resident[nearest]))];
      for (const layer of data.layers) {
        const count = layer.counts[nearest].toLocaleString("en") + " × ";
        if (layer.counts[nearest]) rows.push(row((layer.one ? count : "") + layer.name, bytes(layer.bytes[nearest])));
      }
      box.replaceChildren(...rows);
      box.hidden = false;
      const around = figure.getBoundingClientRect();
      const left = event.clientX - around.left;
      const flip = left > around.width / 2;
      box.style.left = flip ? "auto" : left + 16 + "px";
      box.style.right = flip ? around.width - left + 16 + "px" : "auto";
      box.style.top = Math.max(0, event.clientY - around.top - 30) + "px";
      if (!line || line.parentNode !== svg) {
        if (line) line.remove();
        line = document.createElementNS("http://www.w3.org/2000/svg", "line");
        line.setAttribute("class", "cursor");
        svg.append(line);
      }
      const at = inner.x + (data.at[nearest] - from) / ((to - from) || 1) * inner.width;
      for (const [name, value] of [["x1", at], ["x2", at], ["y1", 0], ["y2", view.height - 96]]) line.setAttribute(name, value);
      shownFor = performance.now();
    };
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerleave", hide);
    document.addEventListener("scroll", hide, { passive: true });
    // A pointer left lying on the picture does not hold up the page for ever.
    return { hide, shown: () => shownFor !== null && performance.now() - shownFor < 4000 };
  })();

  localize(document);
  reveal(location.hash, false);
  if (served) follow();
})();
