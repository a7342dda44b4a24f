"use strict";
// Sorts and filters the table of candidates. Headings are buttons, so that the keyboard reaches them.
(() => {
  const table = document.getElementById("sortable");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  const filter = document.getElementById("filter");
  const frontOnly = document.getElementById("front-only");
  const shown = document.getElementById("shown");

  // Numbers by size, words by the alphabet; what is unknown comes last either way.
  const compared = (one, other, down) => {
    if (one === "" || other === "") return (one === "") - (other === "");
    const numbers = [Number(one), Number(other)];
    const order = numbers.some(Number.isNaN) ? one.localeCompare(other) : numbers[0] - numbers[1];
    return down ? -order : order;
  };

  const sort = (column) => {
    const down = headings[column].getAttribute("aria-sort") === "ascending";
    for (const heading of headings) heading.removeAttribute("aria-sort");
    headings[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort((a, b) => compared(a.cells[column].dataset.sort, b.cells[column].dataset.sort, down));
    body.append(...rows);
  };

  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const visible = words.every((word) => text.includes(word)) && (!frontOnly.checked || row.dataset.front === "yes");
      row.hidden = !visible;
      count += visible;
    }
    shown.textContent = `${count} of ${rows.length}`;
  };

  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => sort(column)));
  filter.addEventListener("input", show);
  frontOnly.addEventListener("change", show);
  show();
})();
