// The page, put together.
let navigation;
function addSection(main, heading, id) {
    const section = add(main, "section");
    section.id = id || heading.toLowerCase().replace(/ /g, "-");
    section.tabIndex = -1;
    add(section, "h2", heading);
    const link = add(add(navigation, "li"), "a", heading);
    link.href = "#" + section.id;
    link.addEventListener("click", event => { // the address is for what was chosen
        event.preventDefault();
        section.scrollIntoView();
        section.focus({preventScroll: true});
    });
    section.link = link;
    return section;
}
function dropSection(section) {
    section.link.parentElement.remove();
    section.remove();
}

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
function setTheme() {
    const system = systemIsDark.matches ? "dark" : "light";
    document.documentElement.dataset.theme = chosen.theme === "auto" ? system : chosen.theme;
}

function controls(parent) {
    const bar = add(parent, "div", undefined, "bar"), label = add(bar, "label", "smoothing ");
    const slider = add(label, "input"), value = add(label, "output", chosen.smooth.toFixed(2));
    Object.assign(slider, {type: "range", min: 0, max: 0.99, step: 0.01, value: chosen.smooth});
    slider.addEventListener("input", () => {
        chosen.smooth = Number(slider.value);
        value.textContent = chosen.smooth.toFixed(2);
        writeAddress();
        redrawPlots();
    });
    const log = addCheck(bar, "log axis", "log", redrawPlots);
    const tables = addCheck(bar, "all tables", "tables", () => {
        for (const plot of plots) plot.details.open = chosen.tables;
        redrawPlots();
    });
    addChoice(bar, "colours", "theme", [["auto", "as the system"], ["light", "light"], ["dark", "dark"]], setTheme);
    addEventListener("keydown", event => {
        if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
        if (event.key === "l") log.click();
        else if (event.key === "t") tables.click();
        else if (event.key === "/" && document.getElementById("find")) {
            event.preventDefault();
            document.getElementById("find").focus();
        }
    });
    add(bar, "span", "keys: l log axis, t tables, / search; Tab to a plot, then arrows and Enter", "about keys");
}

readAddress();
setTheme();
systemIsDark.addEventListener("change", setTheme);
(function build() {
    const main = document.querySelector("main"), header = add(main, "header", undefined, "top");
    add(header, "h1", one ? runs[0].name : `${runs.length} runs`);
    const made = new Date(data.made);
    add(header, "p", `${data.live ? "the run goes on; reload for more. Written" : "made"} ` +
        `${data.made.replace("T", " ").replace("Z", " UTC")}`, "about").title = made.toString();
    document.title = (one ? runs[0].name : `${runs.length} runs`) + " · grpo report";
    navigation = add(add(header, "nav"), "ul");
    overviewSection(main);
    controls(main);
    curveSections(main);
    completionsSection(main);
    runSection(main);
    watchPlots();
    if (chosen.tables) redrawPlots();
})();
