// The logs' data, and what makes elements of it. Text of a log becomes text of the page by textContent alone.
const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const one = runs.length === 1;

// Runs' names: their paths, without the folders that all have in common.
(function nameRuns() {
    const parts = runs.map(run => run.dir.replace(/\/+$/, "").split("/"));
    let common = 0;
    while (!one && parts.every(p => p.length > common + 1 && p[common] === parts[0][common])) common++;
    runs.forEach((run, i) => { run.name = one ? run.dir : parts[i].slice(common).join("/"); });
})();

// Whether a run's accuracy is that of pairs, as when a reward model is trained; or of answers.
const ofPairs = run => run.record?.command === "reward_model", ofAnswers = run => !ofPairs(run);

function add(parent, tag, text, className) {
    const child = document.createElement(tag);
    if (text !== undefined && text !== null) child.textContent = text;
    if (className) child.className = className;
    return parent.appendChild(child);
}

const svgNames = "http://www.w3.org/2000/svg";
function addSvg(parent, tag, attributes, text) {
    const child = document.createElementNS(svgNames, tag);
    for (const name in attributes) child.setAttribute(name, attributes[name]);
    if (text !== undefined) child.textContent = text;
    return parent.appendChild(child);
}

// A number for reading: at most four digits that count.
function shown(x) {
    if (typeof x !== "number" || !isFinite(x)) return "–";
    const size = Math.abs(x);
    if (Number.isInteger(x) && size < 1e7) return String(x);
    if (size >= 1e7 || size < 1e-3) return x.toExponential(2).replace("e+", "e");
    return String(+x.toPrecision(4));
}

// Characters that change how others are shown, or show nothing: by their number, so that a text looks like what it is.
const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
function addText(parent, text) {
    let done = 0;
    for (const hit of text.matchAll(hidden)) {
        parent.append(text.slice(done, hit.index));
        add(parent, "span", "U+" + hit[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0"), "control");
        done = hit.index + hit[0].length;
    }
    parent.append(text.slice(done));
}

// A text of a log, a long one with a note of what was left out of it.
function addLogged(parent, text) {
    if (typeof text === "string") return addText(parent, text);
    addText(parent, text.head);
    add(parent, "span", ` … ${text.cut.toLocaleString("en")} bytes are left out here … `, "cut");
    addText(parent, text.tail);
}
const plain = text => typeof text === "string" ? text : text.head + text.tail;

// The points of a column: steps and values, where there are both.
function points(curves, name, value) {
    const step = curves.columns.step || [], column = curves.columns[name] || [], x = [], y = [];
    for (let i = 0; i < step.length; i++) {
        const v = value ? value(curves.columns, i) : column[i];
        if (step[i] === null || v === null || v === undefined || !isFinite(v)) continue;
        x.push(step[i]);
        y.push(v);
    }
    return {x, y};
}

// Exponential moving average whose start counts as much as it should.
function smoothed(y, weight) {
    let sum = 0, mass = 0;
    return y.map(v => {
        sum = weight * sum + (1 - weight) * v;
        mass = weight * mass + (1 - weight);
        return sum / mass;
    });
}

const mean = y => y.reduce((a, b) => a + b, 0) / y.length;

// What the person chose. The address keeps it, so that a reload, as of a run that goes on, shows the same.
const chosen = {
    smooth: 0.6, log: false, tables: false, theme: "auto",
    run: 0, step: null, find: "", groups: "all", pair: false, shade: "none",
};
function readAddress() {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
        if (!(name in chosen)) continue;
        if (typeof chosen[name] === "boolean") chosen[name] = value === "1";
        else if (name === "step") chosen.step = value === "" ? null : Number(value);
        else if (typeof chosen[name] === "number") chosen[name] = Number(value) || 0;
        else chosen[name] = value;
    }
    if (!runs[chosen.run]) chosen.run = 0;
    chosen.smooth = Math.min(0.99, Math.max(0, chosen.smooth));
}
const defaults = {...chosen};
function writeAddress() {
    const kept = new URLSearchParams();
    for (const name in chosen)
        if (chosen[name] !== defaults[name] && chosen[name] !== null)
            kept.set(name, chosen[name] === true ? "1" : chosen[name] === false ? "0" : chosen[name]);
    history.replaceState(null, "", "#" + kept);
}
