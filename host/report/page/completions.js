// Completions, by step and group.
const most = 24; // groups shown at a time

const isFlat = group => group.items.length > 1 && group.items.every(c => c.reward === group.items[0].reward);
const hasCut = group => group.items.some(c => c.truncated);
const isMixed = group => group.items.some(c => c.advantage > 0) && group.items.some(c => c.advantage < 0);
const kinds = {
    all: ["all groups", () => true], mixed: ["with better and worse", isMixed], flat: ["all rewards equal", isFlat],
    truncated: ["with truncated ones", hasCut],
};

// What may shade a token: how dark for [text, log-prob, entropy].
const shades = {
    logp: t => Math.min(1, -t[1] / 4), entropy: t => Math.min(1, t[2] / 2.5),
};
function addShaded(parent, tokens) {
    for (const token of tokens) {
        const span = add(parent, "span", null, "token");
        addText(span, token[0]);
        span.style.setProperty("--strength", shades[chosen.shade](token).toFixed(3));
        span.title = `log-prob ${shown(token[1])}, entropy ${shown(token[2])}`;
    }
}

function addCompletion(parent, item, widest) {
    const card = add(parent, "article");
    const a = typeof item.advantage === "number" ? item.advantage : 0, strength = widest ? Math.abs(a) / widest : 0;
    card.className = a > 0 ? "above" : a < 0 ? "below" : "";
    card.style.setProperty("--strength", strength.toFixed(3));
    const head = add(card, "header");
    add(head, "b", `reward ${shown(item.reward)}`);
    add(head, "span", `advantage ${a > 0 ? "+" : ""}${shown(item.advantage)}`);
    if (item.truncated) add(head, "span", "truncated", "badge");
    const parts = Object.entries(item.rewards || {});
    if (parts.length) {
        const list = add(card, "ul", undefined, "parts");
        for (const [name, score] of parts) add(list, "li", `${name} ${score === null ? "abstains" : shown(score)}`);
    }
    const text = add(card, "pre");
    if (item.tokens && shades[chosen.shade]) addShaded(text, item.tokens);
    else addLogged(text, item.completion);
}

function addGroup(parent, group) {
    const box = add(parent, "section", undefined, "group"), head = add(box, "h3");
    add(head, "span", `step ${group.step}`);
    add(head, "span", `${group.items.length + group.left} completions`, "about");
    if (isFlat(group)) add(head, "span", "rewards all equal: teaches nothing", "badge");
    const question = add(box, "div", undefined, "question");
    addLogged(add(question, "pre"), group.prompt);
    const gold = add(question, "p", "gold answer: ");
    addLogged(add(gold, "code"), group.answer);
    let items = group.items;
    if (chosen.pair && items.length > 2) {
        const byReward = [...items].sort((a, b) => b.advantage - a.advantage || b.reward - a.reward);
        items = [byReward[0], byReward[byReward.length - 1]];
    }
    const widest = Math.max(...group.items.map(c => Math.abs(c.advantage) || 0));
    const cards = add(box, "div", undefined, "cards");
    for (const item of items) addCompletion(cards, item, widest);
    const left = group.items.length - items.length + group.left;
    const absent = group.left ? `, ${group.left} of them not in this page` : "";
    if (left) add(box, "p", `${left} more of this group are not shown${absent}`, "about");
}

function found(group, word) {
    return [group.prompt, group.answer, ...group.items.map(c => c.completion)]
        .some(text => plain(text).toLowerCase().includes(word));
}

function listGroups() {
    const run = runs[chosen.run], groups = run.completions.groups, list = document.getElementById("groups");
    const word = chosen.find.toLowerCase(), kind = (kinds[chosen.groups] || kinds.all)[1];
    const steps = stepsOf(run);
    if (steps.length && chosen.step === null) chosen.step = steps[steps.length - 1];
    const step = steps.length ? steps[nearest(steps, chosen.step)] : null;
    const hits = groups.filter(g => kind(g) && (word ? found(g, word) : g.step === step));
    list.replaceChildren();
    const far = !word && chosen.step !== step;
    const where = word ? `“${chosen.find}” in all steps` : `step ${step}`;
    add(list, "p", `${hits.length} groups: ${where}` +
        (far ? `, the nearest to step ${chosen.step} of which completions are in this page` : ""), "about");
    for (const group of hits.slice(0, most)) addGroup(list, group);
    if (hits.length > most) {
        const more = add(list, "button", `show the other ${hits.length - most}`);
        more.addEventListener("click", () => {
            more.remove();
            for (const group of hits.slice(most)) addGroup(list, group);
        });
    }
    const field = document.getElementById("step");
    if (field && step !== null) field.value = step;
}

function stepsOf(run) {
    run.steps ??= [...new Set(run.completions.groups.map(g => g.step))].sort((a, b) => a - b);
    return run.steps;
}

// What a click on a plot does.
function showStep(step) {
    const section = document.getElementById("completions");
    if (!section) return;
    Object.assign(chosen, {step, find: ""});
    document.getElementById("find").value = "";
    writeAddress();
    listGroups();
    section.scrollIntoView();
    section.focus({preventScroll: true});
}

function addChoice(parent, label, name, options, onChange) {
    const field = add(add(parent, "label", label + " "), "select");
    for (const [value, text] of options) add(field, "option", text).value = value;
    field.value = chosen[name];
    field.addEventListener("change", () => {
        chosen[name] = typeof chosen[name] === "number" ? Number(field.value) : field.value;
        writeAddress();
        onChange();
    });
}

function addCheck(parent, label, name, onChange) {
    const field = document.createElement("input"), outer = add(parent, "label");
    field.type = "checkbox";
    field.checked = chosen[name];
    outer.append(field, " " + label);
    field.addEventListener("change", () => {
        chosen[name] = field.checked;
        writeAddress();
        onChange();
    });
    return field;
}

function stepControl(parent) {
    const move = by => {
        const steps = stepsOf(runs[chosen.run]), to = nearest(steps, chosen.step) + by;
        if (steps[to] === undefined) return;
        chosen.step = steps[to];
        writeAddress();
        listGroups();
    };
    const back = add(parent, "button", "←"), label = add(parent, "label", "step "), on = add(parent, "button", "→");
    back.setAttribute("aria-label", "earlier step");
    on.setAttribute("aria-label", "later step");
    back.addEventListener("click", () => move(-1));
    on.addEventListener("click", () => move(1));
    const field = add(label, "input");
    Object.assign(field, {type: "number", id: "step", min: 0});
    field.addEventListener("change", () => {
        chosen.step = Number(field.value);
        writeAddress();
        listGroups();
    });
}

function completionsSection(main) {
    const first = runs.findIndex(run => run.completions.groups.length);
    if (first < 0) return;
    if (!runs[chosen.run].completions.groups.length) chosen.run = first;
    const section = addSection(main, "Completions", "completions");
    const sample = runs.map(run => {
        const c = run.completions, kept = c.groups.length;
        return `${one ? "" : run.name + ": "}${kept} of ${c.seen} groups are in this page` +
            (kept < c.seen ? ", evenly chosen" : "") + (c.torn ? `; ${c.torn} lines could not be read` : "");
    });
    add(section, "p", sample.join("; "), "about");
    const bar = add(section, "div", undefined, "bar");
    if (!one) addChoice(bar, "run", "run", runs.map((run, i) => [i, run.name]), listGroups);
    stepControl(bar);
    addChoice(bar, "show", "groups", Object.entries(kinds).map(([name, [text]]) => [name, text]), listGroups);
    addCheck(bar, "best beside worst", "pair", listGroups);
    if (runs.some(run => run.completions.groups.some(g => g.items.some(c => c.tokens))))
        addChoice(bar, "shade tokens by", "shade",
            [["none", "nothing"], ["logp", "how unlikely"], ["entropy", "entropy"]], listGroups);
    const label = add(bar, "label", "search "), field = add(label, "input");
    Object.assign(field, {type: "search", id: "find", value: chosen.find, placeholder: "in all steps"});
    field.addEventListener("input", () => {
        chosen.find = field.value;
        writeAddress();
        listGroups();
    });
    add(section, "div").id = "groups";
    listGroups();
}
