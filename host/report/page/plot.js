// One plot: lines over steps with axes, a crosshair, and its numbers in a table behind it.
//
// A series is {label, colour (0..7), dash, x, y, low, high, range, exact}: ascending x; low and high, where given, bound
// a band: the spread around y, or, where `range` is set, what there was from least to most; exact: never smoothed.
const plots = [];
const box = {left: 52, right: 12, top: 8, bottom: 22, height: 190};

// At most `n` round numbers between a and b.
function roundTicks(a, b, n) {
    const raw = (b - a) / n || 1, base = 10 ** Math.floor(Math.log10(raw));
    const gap = base * [1, 2, 5, 10].find(k => k * base >= raw * (1 - 1e-9));
    const ticks = [];
    for (let k = Math.ceil(a / gap - 1e-9); k * gap <= b + gap * 1e-9; k++) ticks.push(+(k * gap).toPrecision(12));
    return ticks;
}

function powers(a, b) {
    const ticks = [], first = Math.ceil(Math.log10(a) - 1e-9), last = Math.floor(Math.log10(b) + 1e-9);
    const every = Math.max(1, Math.ceil((last - first + 1) / 5));
    for (let k = first; k <= last; k += every) ticks.push(10 ** k);
    return ticks.length > 1 ? ticks : [a, b];
}

function extent(lists, positive) {
    let low = Infinity, high = -Infinity;
    for (const list of lists)
        for (const v of list)
            if (!positive || v > 0) {
                if (v < low) low = v;
                if (v > high) high = v;
            }
    return [low, high];
}

// Index of the value in ascending x nearest to v.
function nearest(x, v) {
    let a = 0, b = x.length - 1;
    while (a < b) {
        const middle = (a + b) >> 1;
        if (x[middle] < v) a = middle + 1;
        else b = middle;
    }
    return a > 0 && v - x[a - 1] <= x[a] - v ? a - 1 : a;
}

function pathOf(xs, ys, place) {
    let d = "", pen = "M";
    for (let i = 0; i < xs.length; i++) {
        const [px, py] = place(xs[i], ys[i]);
        if (!isFinite(py)) {
            pen = "M";
            continue;
        }
        d += `${pen}${px.toFixed(2)},${py.toFixed(2)}`;
        pen = "L";
    }
    return d;
}

class Plot {
    constructor(parent, title, series, options = {}) {
        this.title = title;
        this.series = series.filter(s => s.x.length);
        this.stacked = !!options.stacked;
        this.figure = add(parent, "figure");
        if (!this.series.length) return this.figure.remove();
        this.figure.tabIndex = 0;
        this.figure.dataset.name = title;
        const caption = add(this.figure, "figcaption");
        add(caption, "span", title, "title");
        if (options.about) add(caption, "span", options.about, "about");
        this.readout = add(caption, "output");
        this.readout.setAttribute("aria-live", "off");
        this.svg = addSvg(this.figure, "svg", {"aria-hidden": "true"});
        if (this.series.length > 1 || !one) this.legend();
        this.table();
        this.steps = [...new Set(this.series.flatMap(s => s.x))].sort((a, b) => a - b);
        this.describe();
        this.listen();
        plots.push(this);
    }

    describe() {
        const ends = this.series.map(s => `${s.label}: from ${shown(s.y[0])} at step ${s.x[0]} to ` +
            `${shown(s.y[s.y.length - 1])} at step ${s.x[s.x.length - 1]}`);
        this.figure.setAttribute("role", "group");
        this.figure.setAttribute("aria-label", `${this.title}. ${ends.join("; ")}. Arrow keys read the values, ` +
            `Enter shows the step's completions; the numbers are in the table that follows.`);
        this.say(null);
    }

    legend() {
        const list = add(this.figure, "ul", undefined, "legend");
        for (const s of this.series) {
            const item = add(list, "li");
            const key = addSvg(item, "svg", {viewBox: "0 0 24 8", class: "key"});
            addSvg(key, this.stacked ? "rect" : "path", {
                ...(this.stacked ? {width: 24, height: 8} : {d: "M0,4H24"}),
                class: `${this.stacked ? "fill" : "line"} c${s.colour} d${s.dash || 0}`});
            add(item, "span", s.label);
        }
    }

    // The numbers in full, made when they are asked for.
    table() {
        this.details = add(this.figure, "details");
        add(this.details, "summary", "numbers");
        this.details.addEventListener("toggle", () => {
            if (!this.details.open || this.details.querySelector("table")) return;
            const table = add(add(this.details, "div", undefined, "scroll"), "table");
            add(table, "caption", this.title);
            const head = add(add(table, "thead"), "tr"), body = add(table, "tbody");
            for (const name of ["step", ...this.series.map(s => s.label)]) add(head, "th", name).scope = "col";
            const at = this.series.map(() => 0);
            for (const step of this.steps) {
                const row = add(body, "tr");
                add(row, "th", String(step)).scope = "row";
                this.series.forEach((s, k) => {
                    add(row, "td", s.x[at[k]] === step ? String(s.y[at[k]++]) : "");
                });
            }
        });
    }

    scales() {
        const width = Math.max(160, this.svg.clientWidth || 400), plotted = this.stacked ? this.stack() : this.series;
        const [x0, x1] = extent(this.series.map(s => s.x));
        const [least] = extent(plotted.map(s => s.y), true);
        this.log = chosen.log && !this.stacked && isFinite(least);
        const lists = plotted.flatMap(s => s.low && !this.log ? [s.y, s.low, s.high] : [s.y]);
        let [y0, y1] = extent(lists, this.log);
        if (this.stacked) y0 = 0;
        const room = Math.abs(y0) / 10 || 1;
        if (y0 === y1) [y0, y1] = this.log ? [y0 / 2, y1 * 2] : [y0 - room, y1 + room];
        else if (!this.log) [y0, y1] = [this.stacked ? 0 : y0 - (y1 - y0) * 0.04, y1 + (y1 - y0) * 0.04];
        const inner = {w: width - box.left - box.right, h: box.height - box.top - box.bottom};
        const across = x => box.left + inner.w * (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5);
        const share = this.log ? y => Math.log(y / y0) / Math.log(y1 / y0) : y => (y - y0) / (y1 - y0);
        const up = y => this.log && y <= 0 ? NaN : box.top + inner.h * (1 - share(y));
        return {width, plotted, x0, x1, y0, y1, across, up, inner};
    }

    // Each series on top of those before it.
    stack() {
        const first = this.series[0].x, below = first.map(() => 0);
        return this.series.map(s => {
            const low = [...below];
            s.x.forEach((x, i) => { below[nearest(first, x)] += s.y[i]; });
            return {...s, x: first, y: [...below], low, high: [...below]};
        });
    }

    draw() {
        const s = this.scale = this.scales(), place = (x, y) => [s.across(x), s.up(y)];
        this.drawn = true;
        this.svg.replaceChildren();
        this.svg.setAttribute("viewBox", `0 0 ${s.width} ${box.height}`);
        // For those who read the plot back: what its edges stand for.
        Object.assign(this.svg.dataset, {x0: s.x0, x1: s.x1, y0: s.y0, y1: s.y1, log: this.log ? 1 : 0});
        for (const y of this.log ? powers(s.y0, s.y1) : roundTicks(s.y0, s.y1, 4)) {
            addSvg(this.svg, "line", {class: "grid", x1: box.left, x2: s.width - box.right, y1: s.up(y), y2: s.up(y)});
            addSvg(this.svg, "text", {class: "tick", x: box.left - 6, y: s.up(y) + 4, "text-anchor": "end"}, shown(y));
        }
        for (const x of roundTicks(s.x0, s.x1, Math.max(2, Math.floor(s.width / 80))))
            if (Number.isInteger(x))
                addSvg(this.svg, "text", {class: "tick", x: s.across(x), y: box.height - 6, "text-anchor": "middle"},
                    shown(x));
        for (const line of s.plotted) this.drawSeries(line, place);
        this.cross = addSvg(this.svg, "line",
            {class: "cross", y1: box.top, y2: box.height - box.bottom, visibility: "hidden"});
    }

    drawSeries(line, place) {
        const names = `c${line.colour} d${line.dash || 0}`;
        if (line.low && !this.log) {
            const back = [...line.x.keys()].reverse();
            const d = pathOf(line.x, line.high, place) +
                pathOf(back.map(i => line.x[i]), back.map(i => line.low[i]), place).replace("M", "L") + "Z";
            addSvg(this.svg, "path", {class: `${this.stacked ? "fill" : "band"} ${names}`, d});
        }
        if (this.stacked) return;
        const rough = chosen.smooth > 0 && !line.exact && line.x.length > 2;
        addSvg(this.svg, "path", {class: `line ${rough ? "raw " : ""}${names}`, d: pathOf(line.x, line.y, place)});
        if (rough) {
            const d = pathOf(line.x, smoothed(line.y, chosen.smooth), place);
            addSvg(this.svg, "path", {class: `line ${names}`, d});
        }
        if (line.x.length > 40) return;
        line.x.forEach((x, i) => {
            const [cx, cy] = place(x, line.y[i]);
            if (isFinite(cy)) addSvg(this.svg, "circle", {class: `dot ${names}`, cx, cy, r: 2});
        });
    }

    // Values at a step (null: the last ones), in the plot's corner.
    say(step) {
        const at = step === null ? "" : `step ${step}  `;
        this.readout.textContent = at + this.series.map(s => {
            const i = step === null ? s.x.length - 1 : nearest(s.x, step);
            const spread = !s.low ? "" : s.range ? ` (${shown(s.low[i])} to ${shown(s.high[i])})`
                : ` ± ${shown(s.high[i] - s.y[i])}`;
            return (this.series.length > 1 ? s.label + " " : "") + shown(s.y[i]) + spread;
        }).join("   ");
    }

    // The crosshair at a step, or none.
    mark(step) {
        if (!this.drawn) return;
        const seen = step !== null && step >= this.scale.x0 && step <= this.scale.x1;
        this.cross.setAttribute("visibility", seen ? "visible" : "hidden");
        if (!seen) return;
        this.cross.setAttribute("x1", this.scale.across(step));
        this.cross.setAttribute("x2", this.scale.across(step));
    }

    point(step) {
        this.at = step;
        this.say(step);
        for (const p of plots) p.mark(step);
    }

    listen() {
        const under = event => {
            const edge = this.svg.getBoundingClientRect(), s = this.scale;
            const x = s.x0 + (event.clientX - edge.left - box.left) / s.inner.w * (s.x1 - s.x0);
            return this.steps[nearest(this.steps, x)];
        };
        this.svg.addEventListener("pointermove", event => this.drawn && this.point(under(event)));
        this.svg.addEventListener("pointerleave", () => this.point(null));
        this.svg.addEventListener("click", event => this.drawn && showStep(under(event)));
        this.figure.addEventListener("blur", () => this.point(null));
        this.figure.addEventListener("keydown", event => {
            if (event.target !== this.figure) return;
            const last = this.steps.length - 1;
            const outside = event.key === "ArrowRight" ? -1 : last + 1;
            const now = typeof this.at === "number" ? this.steps.indexOf(this.at) : outside;
            const many = Math.max(1, Math.round(last / 20));
            const to = {ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - many, PageDown: now + many,
                Home: 0, End: last};
            if (event.key === "Enter" && typeof this.at === "number") showStep(this.at);
            else if (event.key === "Escape") this.point(null);
            else if (event.key in to) this.point(this.steps[Math.max(0, Math.min(last, to[event.key]))]);
            else return;
            event.preventDefault();
            this.readout.setAttribute("aria-live", "polite");
        });
    }
}

// Plots are drawn when they come into view, and all of them for a printer.
const inView = new IntersectionObserver(entries => {
    for (const entry of entries) {
        const plot = plots.find(p => p.figure === entry.target);
        plot.seen = entry.isIntersecting;
        if (plot.seen && !plot.drawn) plot.draw();
    }
}, {rootMargin: "300px"});
const resized = new ResizeObserver(entries => {
    for (const entry of entries) {
        const plot = plots.find(p => p.svg === entry.target);
        if (plot.drawn && Math.abs(plot.svg.clientWidth - plot.scale.width) > 1) plot.draw();
    }
});
function watchPlots() {
    for (const plot of plots) {
        inView.observe(plot.figure);
        resized.observe(plot.svg);
    }
    addEventListener("beforeprint", () => plots.forEach(p => p.draw()));
    addEventListener("afterprint", () => plots.forEach(p => p.draw()));
}
function redrawPlots() {
    for (const plot of plots) {
        plot.drawn = false;
        if (plot.seen || chosen.tables) plot.draw();
        plot.details.open = chosen.tables || plot.details.open;
    }
}
