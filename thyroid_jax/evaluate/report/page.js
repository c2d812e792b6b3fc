"use strict";
(function () {
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const all = (selector, inside) => Array.from((inside || document).querySelectorAll(selector));

  function element(name, attributes, children) {
    const made = document.createElement(name);
    Object.entries(attributes || {}).forEach(([key, value]) => made.setAttribute(key, value));
    (children || []).forEach((child) => made.append(child));
    return made;
  }

  // --- outlines shown or hidden, everywhere at once ---------------------------------------------------------------

  ["reference", "predicted"].forEach((name) => {
    const boxes = all(".show-" + name);
    const show = (shown) => {
      boxes.forEach((box) => { box.checked = shown; });
      document.body.classList.toggle("hide-" + name, !shown);
    };
    boxes.forEach((box) => box.addEventListener("change", () => show(box.checked)));
  });

  const block = byId("case-data"), table = byId("cases");
  if (!block || !table) return;
  const cases = JSON.parse(block.textContent);
  const body = table.tBodies[0];

  // --- pictures, drawn when they come into sight ------------------------------------------------------------------

  function drawing(shown) {
    const make = (name, attributes) => {
      const made = document.createElementNS(SVG, name);
      Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
      return made;
    };
    const size = { width: shown.width, height: shown.height };
    const svg = make("svg", { viewBox: `0 0 ${size.width} ${size.height}`, class: "picture", role: "img" });
    svg.append(make("image", { href: shown.href, ...size }));
    ["reference", "predicted"].forEach((name) => {
      if (shown[name]) svg.append(make("path", { d: shown[name], class: "outline " + name }));
    });
    return svg;
  }

  const sight = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      sight.unobserve(entry.target);
      const shown = cases[entry.target.parentNode.dataset.case].picture;
      if (shown) entry.target.replaceChildren(drawing(shown));
    });
  }, { rootMargin: "400px" });
  all("td.thumb", body).forEach((cell) => sight.observe(cell));

  // --- sorting ----------------------------------------------------------------------------------------------------

  all("thead button", table).forEach((button) => {
    const head = button.closest("th"), column = head.cellIndex;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = "numeric" in head.dataset;
      const rows = Array.from(body.rows).map((row) => [row.cells[column].dataset.v, row]);
      rows.sort(([a], [b]) => {
        // A missing value goes last whichever way the column is sorted.
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
        return up ? order : -order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });

  // --- filters ----------------------------------------------------------------------------------------------------

  const NUMBER = "(-?\\d*\\.?\\d+(?:e-?\\d+)?)";
  const COMPARES = {
    "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b, "=": (a, b) => a === b,
  };

  // What a filter's text asks of a cell: null asks nothing, undefined is not understood.
  function question(text, isNumber) {
    const wanted = text.trim().toLowerCase();
    if (wanted === "") return null;
    if (wanted === "-") return (cell) => cell.dataset.v === "";
    if (!isNumber) return (cell) => cell.textContent.toLowerCase().includes(wanted);
    const plain = wanted.replace(/−/g, "-");
    const range = plain.match(new RegExp("^" + NUMBER + "\\s*\\.\\.\\s*" + NUMBER + "$"));
    const compare = plain.match(new RegExp("^(<=|>=|<|>|=)\\s*" + NUMBER + "$"));
    const exact = plain.match(new RegExp("^" + NUMBER + "$"));
    const known = (test) => (cell) => cell.dataset.v !== "" && test(Number(cell.dataset.v));
    if (range) return known((value) => value >= Number(range[1]) && value <= Number(range[2]));
    if (compare) return known((value) => COMPARES[compare[1]](value, Number(compare[2])));
    if (exact) return (cell) => cell.textContent.replace(/−/g, "-").startsWith(plain);
    return undefined;
  }

  const filters = all("tr.filters input, tr.filters select", table);
  const anywhere = byId("filter");

  function filter() {
    const questions = filters.map((field) => {
      const choice = field.tagName === "SELECT" && field.value;
      const asked = choice
        ? (cell) => cell.textContent.replace(/ ✗$/, "") === choice
        : question(field.value, "number" in field.dataset);
      field.setAttribute("aria-invalid", asked === undefined);
      return [field.closest("td").cellIndex, asked];
    }).filter(([, asked]) => asked);
    const words = anywhere.value.trim().toLowerCase();
    let count = 0;
    Array.from(body.rows).forEach((row) => {
      const fits = questions.every(([column, asked]) => asked(row.cells[column]))
        && row.textContent.toLowerCase().includes(words);
      row.hidden = !fits;
      count += fits;
    });
    byId("shown").textContent = `${count} of ${body.rows.length} cases`;
  }
  filters.concat(anywhere).forEach((field) => field.addEventListener("input", filter));
  filter();

  // --- the viewer -------------------------------------------------------------------------------------------------

  const viewer = byId("viewer");
  let place = null;  // of the case on show, in the data
  const visible = () => Array.from(body.rows).filter((row) => !row.hidden);
  const placeOf = (row) => Number(row.dataset.case);

  function rowsOf(lines, heads) {
    const cells = (line, name) => line.map((text, i) => element(i ? name : "th", i ? { class: "n" } : {}, [text]));
    const made = element("table");
    if (heads) made.append(element("thead", {}, [element("tr", {}, cells(heads, "th"))]));
    made.append(element("tbody", {}, lines.map((line) => element("tr", {}, cells(line, "td")))));
    return made;
  }

  function bar(name, share, text, isTrue) {
    const filled = element("div", { class: "share-bar" });
    filled.style.width = 100 * share + "%";
    return element("div", { class: isTrue ? "share true" : "share" }, [
      element("span", { class: "share-name" }, [name]), element("div", { class: "share-track" }, [filled]), text,
    ]);
  }

  function facts(one) {
    const parts = [];
    const section = (heading, ...content) => parts.push(element("h3", {}, [heading]), ...content);
    if (one.bars.length) {
      section("Grade", ...one.bars.map((b) => bar(
        b.name + (b.predicted ? " ◂ predicted" : "") + (b.true ? " ◂ true" : ""), b.share, b.text, b.true)));
      if (!one.trueGrade) parts.push(element("p", { class: "soft" }, ["True grade unknown."]));
    }
    if (one.malignant.text !== "–" || one.malignant.truth) {
      section("Malignancy", bar("P(malignant)", one.malignant.share, one.malignant.text, false),
        element("p", { class: one.malignant.wrong ? "miss" : "soft" },
          [(one.malignant.truth ? "Truth: " + one.malignant.truth : "Truth unknown") + (one.malignant.wrong ? " ✗" : "")]));
    }
    section("Measures", rowsOf(one.facts));
    if (one.readers.length) section("Readers", rowsOf(one.readers, ["", "Dice with the model", "Grade"]));
    if (one.guidance.length) section("Radiomics", rowsOf(one.guidance, ["", "model", "reference"]));
    if (one.about.length) section("Stated", rowsOf(one.about));
    return parts;
  }

  function mark(key) {
    // Without a step in the history, and without the page's scrolling to it.
    history.replaceState(null, "", key === null ? location.pathname + location.search : "#case=" + encodeURIComponent(key));
  }

  function open(which) {
    const one = cases[which], rows = visible(), at = rows.findIndex((row) => placeOf(row) === which);
    place = which;
    byId("viewer-name").textContent = one.key;
    byId("viewer-place").textContent = at < 0 ? "" : `${at + 1} of ${rows.length}`;
    byId("viewer-picture").replaceChildren(one.picture ? drawing(one.picture) : element("p", {}, ["No picture."]));
    byId("viewer-facts").replaceChildren(...facts(one));
    if (!viewer.open) viewer.showModal();
    mark(one.key);
  }

  function step(by) {
    const rows = visible(), at = rows.findIndex((row) => placeOf(row) === place);
    const next = rows[at < 0 ? 0 : at + by];
    if (next) open(placeOf(next));
  }

  function openLinked() {
    if (!location.hash.startsWith("#case=")) {
      if (viewer.open) viewer.close();  // the way back from a link
      return;
    }
    let key;
    try { key = decodeURIComponent(location.hash.slice(6)); } catch { return; }
    const which = cases.findIndex((one) => one.key === key);
    if (which >= 0) open(which);
  }

  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => {
    mark(null);
    const row = body.querySelector(`tr[data-case="${place}"]`);
    if (row && !row.hidden) focus(row, false);
  });
  window.addEventListener("hashchange", openLinked);

  // --- rows and keys ----------------------------------------------------------------------------------------------

  function focus(row, scrolls) {
    all("tr[tabindex]", body).forEach((other) => other.removeAttribute("tabindex"));
    row.tabIndex = 0;
    row.focus({ preventScroll: !scrolls });
    if (scrolls) row.scrollIntoView({ block: "nearest" });
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) open(placeOf(row));
  });

  const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  document.addEventListener("keydown", (event) => {
    const by = STEPS[event.key], field = event.target.closest("input[type=search], select");
    if (field || event.altKey || event.ctrlKey || event.metaKey) return;
    if (viewer.open) {
      if (by) { step(by); event.preventDefault(); }
      return;
    }
    if (!event.target.closest(".table-box") || event.target.closest("thead")) return;
    const rows = visible(), row = event.target.closest("tbody tr"), at = row ? rows.indexOf(row) : -1;
    if (event.key === "Enter" && row) {
      event.preventDefault();  // else the key would press the viewer's first button as well
      open(placeOf(row));
    }
    if (by && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      const next = rows[Math.max(0, Math.min(rows.length - 1, at + by))];
      if (next) focus(next, true);
      event.preventDefault();
    }
  });

  openLinked();
})();
