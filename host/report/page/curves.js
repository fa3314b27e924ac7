// Which numbers are plotted together, and in which order.

// Of several runs, colour tells the run and dashes the number; of one, both tell the number.
function seriesOf(entries) {
    const all = [];
    runs.forEach((run, r) => entries.forEach((entry, k) => {
        const curves = run[entry.from || "train"], {x, y} = points(curves, entry.name, entry.value);
        if (!x.length) return;
        const label = ofPairs(run) && entry.pairs || entry.label || entry.name;
        const series = {x, y, label: [one ? "" : run.name, entries.length > 1 || one ? label : ""]
            .filter(t => t).join(" "), colour: (one ? k : r) % 8, dash: (one ? k : k + Math.floor(r / 8)) % 4};
        series.exact = entry.exact;
        if (entry.spread) {
            const spread = points(curves, entry.spread);
            if (spread.y.length === y.length) {
                series.low = y.map((v, i) => v - spread.y[i]);
                series.high = y.map((v, i) => v + spread.y[i]);
            }
        }
        if (entry.low && entry.high) {
            const low = points(curves, entry.low), high = points(curves, entry.high);
            const whole = low.y.length === y.length && high.y.length === y.length;
            if (whole) Object.assign(series, {low: low.y, high: high.y, range: true});
        }
        all.push(series);
    }));
    return all;
}

// Sections of plots: title, what it is, and its entries {name, label, from, spread, low, high, exact (not smoothed)}. A
// number that no row names gets a plot of its own behind them.
const known = [
    ["Reward", [
        ["reward", "mean, ± standard deviation of the batch", [{name: "reward", spread: "reward_std"},
            {name: "eval/reward", label: "held out", from: "eval"}]],
        ["accuracy", runs.every(ofPairs) ? "share of pairs whose chosen text scores higher" : "share of right answers", [
            {name: "accuracy", label: "strict, train", pairs: "of pairs, train"}, {name: "lenient_accuracy", label: "lenient, train"},
            {name: "eval/accuracy", label: "strict, held out", pairs: "of pairs, held out", from: "eval"},
            {name: "eval/lenient_accuracy", label: "lenient, held out", from: "eval"}]],
        ["groups that teach nothing", "share of groups whose rewards are all equal", [
            {name: "frac_reward_zero_std"}, {name: "frac_groups_equal"}]],
        ["spread within groups", "mean standard deviation", [{name: "reward_group_std"}]],
    ]],
    ["Length and entropy", [
        ["length", "tokens: mean, least to most", [{name: "completions/mean_length", label: "mean",
            low: "completions/min_length", high: "completions/max_length"},
            {name: "eval/mean_length", label: "mean, held out", from: "eval"}]],
        ["length of those that ended", "tokens: mean, least to most", [{name: "completions/mean_terminated_length",
            label: "mean", low: "completions/min_terminated_length", high: "completions/max_terminated_length"}]],
        ["cut at the limit", "share of completions", [{name: "completions/clipped_ratio", label: "share"}]],
        ["entropy", "of the tokens that carry the loss", [{name: "entropy"}]],
    ]],
    ["Policy", [
        ["loss", "", [{name: "loss"}, {name: "policy_loss"}]],
        ["KL", "to the reference", [{name: "kl"}]],
        ["clipped", "share of ratios", [{name: "clip_ratio/region_mean", label: "any"},
            {name: "clip_ratio/low_mean", label: "below"}, {name: "clip_ratio/high_mean", label: "above"},
            {name: "cispo_clip_ratio", label: "capped"}]],
        ["clipped, extremes", "least and most of a sequence", [{name: "clip_ratio/low_min", label: "below, least"},
            {name: "clip_ratio/high_max", label: "above, most"}]],
        ["ratio", "mean, now to when sampled", [{name: "ratio_mean"}]],
        ["gradient norm", "before clipping", [{name: "grad_norm"}]],
        ["learning rate", "", [{name: "learning_rate", exact: true}]],
        ["entropy coefficient", "", [{name: "entropy_coef", exact: true}]],
    ]],
];
const phases = ["rollout", "reward", "reference", "train", "optimizer"];
const notPlotted = new Set(["step", "epoch", "num_tokens", "step_time", "reward_std", "completions/min_length",
    "completions/max_length", "completions/min_terminated_length", "completions/max_terminated_length",
    ...phases.map(p => "time/" + p)]);

function rewardPlots(parent, used) {
    const names = new Set(runs.flatMap(run => Object.keys(run.train.columns)));
    for (const name of names) {
        const part = /^rewards\/(.+)\/mean$/.exec(name);
        if (!part) continue;
        used.add(name).add(`rewards/${part[1]}/std`);
        new Plot(parent, part[1], seriesOf([{name, label: part[1], spread: `rewards/${part[1]}/std`}]),
            {about: "mean, ± standard deviation"});
    }
}

// Where a step's time goes, a plot a run; and how fast it is.
function speedPlots(parent) {
    for (const run of runs) {
        const columns = run.train.columns, series = [];
        phases.forEach((phase, k) => {
            const {x, y} = points(run.train, "time/" + phase);
            if (y.some(v => v > 0)) series.push({x, y, label: phase, colour: k, dash: 0});
        });
        if (columns.step_time) {
            const rest = points(run.train, "", (c, i) => c.step_time[i] === null ? null :
                Math.max(0, c.step_time[i] - phases.reduce((sum, p) => sum + ((c["time/" + p] || [])[i] || 0), 0)));
            series.push({...rest, label: series.length ? "other" : "step", colour: 7, dash: 0});
        }
        const title = one ? "a step's time" : `a step's time: ${run.name}`;
        new Plot(parent, title, series, {about: "seconds", stacked: true});
    }
    const rate = (c, i) => {
        const all = i && c.num_tokens && c.step_time && c.num_tokens[i] !== null && c.num_tokens[i - 1] !== null;
        return !all ? null : (c.num_tokens[i] - c.num_tokens[i - 1]) / (c.step[i] - c.step[i - 1]) / c.step_time[i];
    };
    new Plot(parent, "tokens a second", seriesOf([{name: "", label: "tokens/s", value: rate}]),
        {about: "prompts and completions, at the step's own time"});
    new Plot(parent, "rows saved", seriesOf([{name: "frac_rows_saved"}]),
        {about: "share of training's, by shared prompts"});
    new Plot(parent, "training's share of the card", seriesOf([{name: "mfu"}]),
        {about: "model FLOP utilization, of the data sheet's bf16 products"});
    new Plot(parent, "memory", seriesOf([{name: "memory/process_gib", label: "process, at most"},
        {name: "memory/device_gib", label: "GPU, in use"}]), {about: "GiB"});
}

// What each rank did of a step, where there are several: rank 0's numbers bear no rank.
function rankTables(section) {
    for (const run of runs) {
        let ranks = 1;
        while (run.train.columns[`time/train/rank_${ranks}`]) ranks++;
        if (ranks === 1) continue;
        const costs = [...phases.map(p => "time/" + p), "memory/process_gib", "memory/device_gib"]
            .filter(name => run.train.columns[name]);
        const rows = Array.from({length: ranks}, (_, rank) => ({cells: [`rank ${rank}`, ...costs.map(name => {
            const {y} = points(run.train, rank ? `${name}/rank_${rank}` : name);
            return shown(name.startsWith("time/") ? mean(y) : lastOf(y));
        })]}));
        addTable(section, `${one ? "" : run.name + ": "}each rank's own seconds a step, on average, and GiB in the end; ` +
            "reference and optimizer with the exchange between ranks",
            ["", ...costs.map(name => name.replace(/^time.|_gib$/g, "").replace("/", ", "))], rows);
    }
}

function curveSections(main) {
    const used = new Set([...notPlotted, "frac_rows_saved", "mfu", "memory/process_gib", "memory/device_gib"]);
    for (const [heading, rows] of known) {
        const section = addSection(main, heading), grid = add(section, "div", undefined, "plots");
        for (const [title, about, entries] of rows) {
            const there = entries.filter(e => runs.some(run => run[e.from || "train"].columns[e.name]));
            for (const e of there) used.add(e.name);
            new Plot(grid, title, seriesOf(there), {about});
            if (title === "reward") rewardPlots(grid, used);
        }
        if (!grid.children.length) dropSection(section);
    }
    const speed = addSection(main, "Speed"), fast = add(speed, "div", undefined, "plots");
    speedPlots(fast);
    rankTables(speed);
    if (!fast.children.length) dropSection(speed);
    const other = addSection(main, "Other numbers"), grid = add(other, "div", undefined, "plots");
    for (const from of ["train", "eval"])
        for (const name of new Set(runs.flatMap(run => Object.keys(run[from].columns))))
            if (!used.has(name) && !/\/rank_\d+$/.test(name)) {
                used.add(name);
                new Plot(grid, name, seriesOf([{name, from}]));
            }
    if (!grid.children.length) dropSection(other);
}
