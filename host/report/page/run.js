// What the runs are: where they stand, final numbers, configuration.
const lastOf = list => list[list.length - 1];

function addTable(parent, caption, head, rows) {
    const table = add(add(parent, "div", undefined, "scroll"), "table"), top = add(add(table, "thead"), "tr");
    add(table, "caption", caption);
    for (const name of head) add(top, "th", name).scope = "col";
    const body = add(table, "tbody");
    for (const row of rows) {
        const line = add(body, "tr", undefined, row.className);
        row.cells.forEach((cell, i) => {
            const field = add(line, i ? "td" : "th");
            if (!i) field.scope = "row";
            addText(field, String(cell));
        });
    }
    return table;
}

function summary(parent, run, r) {
    const steps = points(run.train, "step").y, record = run.record, parts = [];
    const step = steps.length ? lastOf(steps) : 0;
    parts.push(record ? `step ${step} of ${record.steps}` : `step ${step}`);
    if (run.train.stride > 1)
        parts.push(`${steps.length} of ${run.train.seen} logged steps are in this page, evenly chosen`);
    const torn = run.train.torn + run.eval.torn;
    if (torn) parts.push(`${torn} lines of metrics.jsonl could not be read`);
    if (run.completions.torn) parts.push(`${run.completions.torn} lines of completions.jsonl could not be read`);
    if (run.long) parts.push(`${run.long} lines were longer than 16 MiB and are left out`);
    if (record && !run.goes_on && step < record.steps) parts.push("no process here goes on with it");
    if (run.half) parts.push(run.goes_on ? "" : "a log ends in half a line: the run was killed");
    if (run.train.unnamed) parts.push("of more than 256 numbers a step, the others are left out");
    const p = add(parent, "p", undefined, `run c${one ? 0 : r % 8}`);
    if (!one) add(p, "b", run.name + ": ");
    p.append(parts.filter(t => t).join("; "));
}

// Final numbers: means over the last ten rows, for a single one says little.
const finalNumbers = [["reward", "train", "reward"], ["eval/accuracy", "eval", "accuracy, held out", ofAnswers],
    ["eval/lenient_accuracy", "eval", "lenient accuracy, held out"], ["accuracy", "train", "accuracy, train", ofAnswers],
    ["eval/accuracy", "eval", "accuracy of pairs, held out", ofPairs],
    ["accuracy", "train", "accuracy of pairs, train", ofPairs],
    ["lenient_accuracy", "train", "lenient accuracy, train"],
    ["completions/mean_length", "train", "length, tokens"], ["completions/clipped_ratio", "train", "cut at the limit"],
    ["kl", "train", "KL"], ["entropy", "train", "entropy"], ["grad_norm", "train", "gradient norm"],
    ["loss", "train", "loss"], ["step_time", "train", "seconds a step"]];
function finalTable(parent) {
    const rows = [];
    // Each run is compared with the first one of its own command.
    const base = runs.map(run => runs.findIndex(other => other.record?.command === run.record?.command));
    for (const [name, from, label, only] of finalNumbers) {
        const ends = runs.map(run => !only || only(run) ? points(run[from], name).y : []).map(y => y.length ? {
            first: mean(y.slice(0, 10)), last: mean(y.slice(-10))} : null);
        if (!ends.some(e => e)) continue;
        const difference = (a, b) => a === undefined || b === undefined ? "–" : (b - a > 0 ? "+" : "") + shown(b - a);
        const {first, last} = ends[0] || {};
        if (one) rows.push({cells: [label, shown(first), shown(last), difference(first, last)]});
        const beside = (e, i) => base[i] < i ? [shown(e?.last), difference(ends[base[i]]?.last, e?.last)] : [shown(e?.last)];
        if (!one) rows.push({cells: [label, ...ends.flatMap(beside)]});
    }
    if (!rows.length) return;
    const title = "Means over the first and the last ten logged rows";
    if (one) addTable(parent, title, ["", "first", "last", "change"], rows);
    else addTable(parent, "Means over the last ten logged rows, and what each run has more than " +
        (base.some(b => b) ? "the first of its command" : runs[0].name),
        ["", ...runs.flatMap((run, i) => base[i] < i ? [run.name, "difference"] : [run.name])], rows);
}

// A pipeline's finished phases, and what its evaluations and selections found.
function phaseTable(parent) {
    for (const {dir, phases} of data.pipelines) {
        const numbers = [["accuracy", "accuracy"], ["lenient_accuracy", "lenient accuracy"], ["reward", "reward"],
            ["mean_length", "length, tokens"], ["kept", "kept"], ["completions", "of completions"]];
        const there = numbers.filter(([name]) => phases.some(p => typeof p.found?.[name] === "number"));
        addTable(parent, `Finished phases of ${dir}`, ["phase", "command", "seconds", ...there.map(n => n[1])],
            phases.map(p => ({cells: [p.name, p.command ?? "–", shown(p.seconds), ...there.map(([name]) =>
                shown(p.found?.[name]))]})));
    }
}

function overviewSection(main) {
    const section = addSection(main, "Overview");
    runs.forEach((run, r) => summary(section, run, r));
    const commands = [...new Set(runs.map(run => run.record?.command).filter(c => c))];
    if (commands.length > 1)
        add(section, "p", `These are runs of several commands (${commands.join(", ")}): a number that two of them call ` +
            "the same need not mean the same. Differences are shown within a command.");
    phaseTable(section);
    finalTable(section);
}

function runSection(main) {
    const section = addSection(main, "Run");
    const facts = [["command", r => r.command], ["version", r => r.version], ["device", r => r.device],
        ["machine", r => r.machine], ["ranks", r => r.ranks], ["data", r => `${r.rows} rows, ${r.data}`],
        ["starts", r => (Array.isArray(r.starts) ? r.starts : []).map(s => `${s.at}${s.step ? ` from step ${s.step}` : ""}`).join("; ")]];
    const rows = facts.map(([name, of]) => ({cells: [name, ...runs.map(run => run.record ? of(run.record) : "–")]}));
    rows.push({cells: ["checkpoints", ...runs.map(run => run.checkpoints.map(n => `step ${n}`).join(", ") || "none")]});
    const names = runs.map(run => one ? "" : run.name);
    addTable(section, "The run and its machine", ["", ...names], rows).classList.add("words");
    for (const run of runs) {
        if (!run.record?.plan) continue;
        const plan = add(section, "details");
        add(plan, "summary", `memory${one ? "" : " of " + run.name}, as planned`);
        addText(add(plan, "pre"), run.record.plan);
    }
    for (const run of runs) {
        if (!run.notes?.length) continue;
        const notes = add(section, "details");
        notes.open = run.notes.length < 30;
        add(notes, "summary", `what ${one ? "the run" : run.name} said`);
        const rows = run.notes.map(n => ({cells: [n.at.replace("T", " ").replace("Z", ""), n.text]}));
        addTable(notes, "", ["when", "what"], rows).classList.add("words");
    }
    const options = runs.map(run => new Map((run.record?.options || []).map(o => [o.name, o])));
    const all = [...new Set(options.flatMap(map => [...map.keys()]))];
    if (!all.length) return void add(section, "p", "The configuration is not known: no run.json is beside the logs.");
    const value = (map, name) => map.get(name)?.value ?? "–";
    const differs = name => options.some(map => value(map, name) !== value(options[0], name));
    const set = name => options.some(map => map.get(name)?.default !== undefined);
    const important = all.filter(name => set(name) || differs(name));
    const row = name => ({cells: [name, ...options.map(map => value(map, name)),
        options.map(map => map.get(name)?.default).find(d => d !== undefined) ?? "as here"],
        className: !one && differs(name) ? "differs" : ""});
    const head = ["option", ...names.map(n => n || "value"), "default"];
    addTable(section, "Options that differ from their defaults" + (one ? "" : "; marked where the runs differ"), head,
        important.map(row)).classList.add("words");
    const rest = add(section, "details");
    add(rest, "summary", `the other ${all.length - important.length} options`);
    addTable(rest, "Options at their defaults", head, all.filter(name => !important.includes(name)).map(row))
        .classList.add("words");
}
