"use strict";
(function () {
  const tip = document.getElementById("hover");
  let lit = null;
  function hide() {
    tip.hidden = true;
    if (lit) lit.classList.remove("lit");
    lit = null;
  }
  function show(mark, x, y) {
    if (lit !== mark) {
      hide();
      lit = mark;
      if (mark.tagName !== "g") mark.classList.add("lit");
      tip.textContent = mark.dataset.tip;
      tip.hidden = false;
    }
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
    const top = y + 16 + box.height > innerHeight ? y - 12 - box.height : y + 16;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, top) + "px";
  }
  // the nearest dot within reach: nobody hits one of three pixels
  function nearest(chart, x, y) {
    let best = null, least = 22 * 22;
    for (const dot of chart.querySelectorAll("circle[data-tip]")) {
      const box = dot.getBoundingClientRect();
      const dx = box.left + box.width / 2 - x, dy = box.top + box.height / 2 - y;
      const front = dot.parentNode.classList.contains("cloud") ? 1 : 0.6;
      const far = (dx * dx + dy * dy) * front;
      if (far < least) { least = far; best = dot; }
    }
    return best;
  }
  for (const chart of document.querySelectorAll("svg.chart")) {
    const look = function (event) {
      const direct = event.target.closest("[data-tip]");
      const mark = direct && direct.tagName !== "circle" ? direct : nearest(chart, event.clientX, event.clientY);
      if (mark) show(mark, event.clientX, event.clientY); else hide();
    };
    chart.addEventListener("pointermove", look);
    chart.addEventListener("pointerdown", look);
    chart.addEventListener("pointerleave", hide);
  }
  addEventListener("scroll", hide, { passive: true });
  addEventListener("beforeprint", function () {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
