// A line chart of the last while in a figure, with a legend, and a table that says the same.

import uPlot from "./uPlot.esm.js";
import { colour, onTheme } from "./theme.js";
import { el, say, svg } from "./dom.js";

const POINTS = 1200; // when there are more, every other one goes: the whole story stays
const ROWS = 12;     // of the table, spread over all points
const LEAST = 10;    // seconds that a chart spans
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
const DASHES = { solid: [], dashed: [8, 5], dotted: [2, 3] };
const time = new Intl.DateTimeFormat("en", { timeStyle: "medium", hourCycle: "h23" });
const clock = (t) => time.format(t * 1000);

const sample = (line) => svg("svg", { width: 28, height: 10, "aria-hidden": "true" },
	svg("line", { x1: 0, x2: 28, y1: 5, y2: 5, stroke: "currentColor", "stroke-width": 2.5,
		"stroke-dasharray": DASHES[line.dash].join(" ") }));

export class Chart {
	/** lines: [{name, colour, dash}], format: a value in words, top: of the scale, or none. */
	constructor(figure, lines, format, top) {
		Object.assign(this, { lines, format, top });
		this.box = el("div", { className: "plot", role: "img" });
		this.values = lines.map(() => el("span"));
		this.table = el("table");
		const legend = el("ul", { className: "legend" });
		lines.forEach((line, i) => {
			const item = el("li", { className: line.colour }, sample(line));
			item.append(el("span", { className: "name" }, line.name, " "), this.values[i]);
			legend.append(item);
		});
		this.details = el("details", {}, el("summary", {}, "As a table"), this.table);
		this.details.addEventListener("toggle", () => this.tell());
		figure.append(this.box, legend, this.details);
		this.clear();
		new ResizeObserver(() => this.fit()).observe(this.box);
		onTheme(() => this.plot?.redraw(false));
	}

	clear() {
		this.data = [[], ...this.lines.map(() => [])];
		this.plot?.setData(this.data);
		this.tell();
	}

	/** At time t (seconds) the lines were at values; null: nothing is known. */
	push(t, values) {
		[t, ...values].forEach((v, i) => this.data[i].push(v));
		if (this.data[0].length > POINTS)
			this.data = this.data.map((column) => column.filter((_, i) => i % 2));
		this.fit();
		this.plot?.setData(this.data);
		this.tell();
	}

	fit() {
		const width = this.box.clientWidth;
		if (!width)
			return;
		if (!this.plot)
			this.plot = new uPlot(this.options(width), this.data, this.box);
		else if (this.plot.width !== width)
			this.plot.setSize({ width, height: this.plot.height });
	}

	options(width) {
		const axis = { stroke: () => colour("quiet"), ticks: { show: false },
			grid: { stroke: () => colour("hair"), width: 1 }, font: "12px system-ui, sans-serif" };
		const range = (u, low, high) => [0, this.top ?? Math.max(1, 1.1 * (high ?? 0))];
		const span = (u, from, to) => [Math.min(from ?? 0, (to ?? 0) - LEAST), to ?? 0];
		return {
			width, height: 150, legend: { show: false }, scales: { x: { range: span }, y: { range } },
			cursor: { points: { show: false }, drag: { x: false, y: false } },
			hooks: { setCursor: [(u) => this.point(u.cursor.idx)] },
			axes: [
				{ ...axis, space: 90, size: 28, incrs: STEPS, values: (u, at) => at.map(clock) },
				{ ...axis, size: 62, values: (u, at) => at.map(this.format) },
			],
			series: [{}, ...this.lines.map((line) => ({
				stroke: () => colour(line.colour), width: 2, dash: DASHES[line.dash],
				points: { show: false }, spanGaps: true,
			}))],
		};
	}

	/** The figures at point i, or the last ones, in the legend. */
	point(i) {
		const at = i ?? this.data[0].length - 1;
		this.values.forEach((e, k) => {
			const v = this.data[k + 1][at];
			say(e, v == null ? "–" : this.format(v));
		});
	}

	tell() {
		const n = this.data[0].length;
		this.point(this.plot?.cursor.idx);
		this.box.setAttribute("aria-label", n ? "Chart; its last figures are in the legend below, "
			+ "and all of it in the table." : "Chart without figures yet.");
		if (!this.details.open)
			return;
		const head = ["Time", ...this.lines.map((l) => l.name)].map((t) => el("th", { scope: "col" }, t));
		const rows = [];
		for (let r = Math.min(n, ROWS) - 1, last = r; r >= 0; r--) {
			const i = last ? Math.round(r * (n - 1) / last) : n - 1;
			rows.push(el("tr", {}, ...this.data.map((column, k) =>
				el("td", {}, column[i] == null ? "–" : k ? this.format(column[i]) : clock(column[i])))));
		}
		this.table.replaceChildren(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
	}
}
