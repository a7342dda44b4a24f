"use strict";
// Draws the charts from the JSON beside them, in the colours of the page, and again whenever those or the width change.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  const printWidth = 640;
  const figures = [...document.querySelectorAll("script[data-chart]")].map((script) => ({
    element: document.getElementById(script.dataset.chart),
    figure: JSON.parse(script.textContent),
  }));

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // A copy of `value` with every "var(--name)" replaced by what the style sheet says.
  const painted = (value) => {
    if (typeof value === "string") {
      const match = /^var\((--[a-z-]+)\)$/.exec(value);
      return match ? colour(match[1]) : value;
    }
    if (Array.isArray(value)) return value.map(painted);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item)]));
    }
    return value;
  };

  const themed = (layout, width) => {
    const axis = { gridcolor: colour("--grid"), linecolor: colour("--rule"), tickcolor: colour("--rule"), zerolinecolor: colour("--rule") };
    return {
      ...layout,
      ...(width ? { width, autosize: false } : { autosize: true }),
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--text") },
      hoverlabel: { bgcolor: colour("--surface"), bordercolor: colour("--rule"), font: { color: colour("--text") } },
      separators: ".,",
    };
  };

  const draw = (width) => {
    for (const { element, figure } of figures) {
      const { data, layout } = painted(figure);
      Plotly.react(element, data, themed(layout, width), { displayModeBar: false, responsive: !width });
    }
  };

  const show = (theme) => {
    root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.setAttribute("aria-label", `Colour theme: ${theme === "auto" ? "automatic" : theme}`);
    draw();
  };

  const remembered = () => {
    try {
      return localStorage.getItem("txlplan-theme");
    } catch {
      return null; // (a page opened from a file may not be allowed to remember)
    }
  };

  button.addEventListener("click", () => {
    const theme = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    try {
      localStorage.setItem("txlplan-theme", theme);
    } catch {
      // (then it is not remembered)
    }
    show(theme);
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
    draw(printWidth);
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    draw();
  });

  show(themes.includes(remembered()) ? remembered() : "auto");
})();
