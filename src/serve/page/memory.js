// The live picture of one session's memory: what it sees of its log now, how it grew, and why.

import { get, post } from "./api.js";
import { Chart } from "./chart.js";
import { $, SOURCES, bytes, count, el, figures, nameOf, plural, say, svg } from "./dom.js";
import { stateOf } from "./sessions.js";

const HEIGHT = 44, LEAST = 3; // pixels; a part is never narrower than LEAST
const NAMES = { sink: "first tokens", window: "window", evicted: "evicted",
	recompute: "restored, recompute", spill: "restored, spill", hidden: "restored, hidden",
	project: "restored, project" };
// What is drawn over a kind's ground, in a square of 8, in the kind's colour or the paper's.
const PATTERNS = {
	sink: ["M0 4h8", "paper"], window: [], evicted: ["M2 2h1M6 6h1", "kind"],
	recompute: ["M-2 2l4-4M0 8l8-8M6 10l4-4", "paper"], spill: ["M0 4h8M4 0v8", "paper"],
	hidden: ["M4 0v8", "paper"], project: ["M-2 6l4 4M0 0l8 8M6-2l4 4", "paper"],
};

function patterns() {
	return svg("defs", {}, ...Object.entries(PATTERNS).map(([kind, [path, by]]) => {
		const p = svg("pattern", { id: `of-${kind}`, class: kind, width: 8, height: 8,
			patternUnits: "userSpaceOnUse" });
		if (by !== "kind")
			p.append(svg("rect", { width: 8, height: 8, fill: "currentColor" }));
		if (path)
			p.append(svg("path", { d: path, fill: "none", "stroke-width": 2,
				...(by === "kind" ? { stroke: "currentColor" } : { class: "over" }) }));
		return p;
	}));
}

const swatch = (kind) => svg("svg", { width: 18, height: 12, "aria-hidden": "true" },
	svg("rect", { width: 18, height: 12, fill: `url(#of-${kind})`, class: "edge" }));

const span = (from, to) => (to - from === 1 ? count(from) : `${count(from)} to ${count(to - 1)}`);

/** Parts of the log, [{kind, from, to}], in the order in which they are drawn: all of it evicted,
 *  then what is in sight over that. */
export function partsOf({ length, sink, window_from: from, chunks }) {
	const parts = [], first = Math.min(sink, from);
	if (from > first)
		parts.push({ kind: "evicted", from: first, to: from });
	for (const c of chunks)
		parts.push({ kind: c.source, from: c.from, to: c.to });
	if (first > 0)
		parts.push({ kind: "sink", from: 0, to: first });
	if (length > from)
		parts.push({ kind: "window", from, to: length });
	return parts;
}

const box = document.querySelector("#strip .strip");
let last = null; // the view that is drawn

function drawStrip() {
	const width = box.clientWidth;
	if (!last || !width)
		return;
	const scale = width / Math.max(1, last.length);
	const picture = svg("svg", { width, height: HEIGHT, role: "img",
		"aria-label": "The log from its first position to its last; in words below" }, patterns());
	for (const { kind, from, to } of partsOf(last)) {
		const w = Math.max(LEAST, (to - from) * scale);
		picture.append(svg("rect", { x: Math.min(from * scale, width - w), y: 0, width: w, height: HEIGHT,
			fill: `url(#of-${kind})`, "data-kind": kind, class: kind }));
	}
	picture.append(svg("rect", { x: .5, y: .5, width: width - 1, height: HEIGHT - 1, class: "edge" }));
	box.replaceChildren(picture);
}

function legend(parts) {
	const sums = new Map();
	for (const { kind, from, to } of parts)
		sums.set(kind, (sums.get(kind) ?? 0) + to - from);
	for (const { kind, from, to } of parts)
		if (SOURCES.includes(kind) && sums.has("evicted"))
			sums.set("evicted", sums.get("evicted") - (to - from));
	const ul = document.querySelector("#strip .legend");
	const kinds = [...sums.keys()].join();
	if (ul.dataset.kinds !== kinds) {
		ul.dataset.kinds = kinds;
		ul.replaceChildren(...[...sums.keys()].map((kind) =>
			el("li", {}, swatch(kind), el("span"))));
	}
	[...sums].forEach(([kind, n], i) => say(ul.children[i].lastChild, `${NAMES[kind]} ${count(n)}`));
}

function inWords(view, parts) {
	const of = (kind) => parts.find((p) => p.kind === kind);
	const sink = of("sink"), evicted = of("evicted"), window = of("window");
	if (!window)
		return "The log is empty.";
	const words = [];
	if (!evicted)
		words.push(`All ${plural(view.length, "position")} are resident.`);
	else {
		words.push(`Resident: ${sink ? `the first tokens, ${span(sink.from, sink.to)}, and ` : ""}`
			+ `the window, ${span(window.from, window.to)}. Evicted: ${span(evicted.from, evicted.to)}.`);
		const back = view.chunks.map((c) => `${span(c.from, c.to)} (${c.source})`);
		words.push(back.length ? `Brought back of that: ${back.join("; ")}.` : "Nothing of it is back.");
	}
	return words.join(" ");
}

/** The text of positions that were brought back, which is asked for when it is to be seen. */
async function readBack(id, { from, to }, text) {
	try {
		const { ids } = await get(`/v1/sessions/${id}/log`);
		say(text, (await post("/v1/detokenize", { tokens: ids.slice(from, to) })).content);
	} catch (e) {
		say(text, e.message);
	}
}

function backItem(id, chunk, name) {
	const text = el("p", { className: "text" }, "Loading …");
	const details = el("details", {}, el("summary", {}, name), text);
	details.addEventListener("toggle", () => readBack(id, chunk, text), { once: true });
	const li = el("li", {}, details);
	li.dataset.name = `${id} ${name}`;
	return li;
}

/** What stays keeps its element, so that text that is being read is not folded away. */
function drawBack(id, chunks) {
	const ul = $("back"), old = new Map([...ul.children].map((li) => [li.dataset.name, li]));
	const items = chunks.map((c) => {
		const name = `${span(c.from, c.to)} (${c.source})`;
		return old.get(`${id} ${name}`) ?? backItem(id, c, name);
	});
	if (items.length !== ul.children.length || items.some((li, i) => ul.children[i] !== li))
		ul.replaceChildren(...items);
	$("back-title").hidden = !chunks.length;
}

const CHUNK = 32;

function drawEvents(events) {
	$("events-none").hidden = events.length > 0;
	$("events").parentNode.hidden = !events.length;
	const body = $("events").tBodies[0];
	const what = JSON.stringify(events);
	if (body.dataset.what === what)
		return;
	body.dataset.what = what;
	body.replaceChildren(...events.map((e) => el("tr", {},
		el("td", {}, count(e.position)),
		el("td", {}, e.chunks.map((c) => span(c * CHUNK, (c + 1) * CHUNK)).join(", ") || "none"),
		el("td", {}, [...new Set(e.sources)].map((s) =>
			`${e.sources.filter((t) => t === s).length} ${s}`).join(", ") || "–"),
		el("td", {}, `last ${e.reread}`))));
}

let growth, of = null;

export function start() {
	growth = new Chart($("growth"), [
		{ name: "log", colour: "log", dash: "solid" },
		{ name: "resident", colour: "window", dash: "dotted" },
		{ name: "budget", colour: "budget", dash: "dashed" },
	], count);
	new ResizeObserver(drawStrip).observe(box);
}

/** Shows session and view (of /memory) at time t in seconds, or, with null, nothing. */
export function update(session, view, t) {
	$("memory-shown").hidden = $("actions").hidden = !session;
	$("memory-none").hidden = !!session;
	say($("memory-title"), session ? `Memory of ${nameOf(session)}` : "Memory");
	if (!session)
		return;
	if (of !== session.id)
		growth.clear();
	of = session.id;
	figures($("memory-figures"), [
		["State", stateOf(session)], ["Log", count(session.length)],
		["Resident", session.budget_positions
			? `${count(session.resident)} of ${count(session.budget_positions)}` : count(session.resident)],
		["Evicted", count(session.evicted)], ["Restored now", count(session.restored)],
		["Restorations", count(session.events)], ["Fallbacks", count(session.fallbacks)],
		["K/V", bytes(session.kv_bytes)], ["On disk", bytes(session.disk_bytes)],
	]);
	last = view;
	drawStrip();
	const parts = partsOf(view);
	legend(parts);
	say(document.querySelector("#strip .last"), count(view.length));
	say(document.querySelector("#strip .in-words"), inWords(view, parts));
	drawBack(session.id, view.chunks);
	growth.push(t, [session.length, session.resident, session.budget_positions || null]);
	drawEvents(view.events);
}
