// Elements and words. Text goes in as text, never as markup: what a model says cannot act.

export const $ = (id) => document.getElementById(id);

/** An element with properties (or attributes, where there is no such property) and children. */
export function el(tag, properties = {}, ...children) {
	const e = document.createElement(tag);
	for (const [name, value] of Object.entries(properties))
		name in e ? e[name] = value : e.setAttribute(name, value);
	e.append(...children);
	return e;
}

export function svg(tag, attributes = {}, ...children) {
	const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
	for (const [name, value] of Object.entries(attributes))
		e.setAttribute(name, value);
	e.append(...children);
	return e;
}

/** Sets text only where it differs, so that nobody is told twice and a selection stays. */
export function say(e, text) {
	if (e.textContent !== text)
		e.textContent = text;
}

/** A list of terms and figures, [[term, figure]...], kept as long as its terms are the same. */
export function figures(dl, pairs) {
	const terms = pairs.map(([term]) => term).join();
	if (dl.dataset.terms !== terms) {
		dl.dataset.terms = terms;
		dl.replaceChildren(...pairs.map(([term]) => el("div", {}, el("dt", {}, term), el("dd"))));
	}
	pairs.forEach(([, figure], i) => say(dl.children[i].lastChild, figure));
}

export const count = (n) => Math.round(n ?? 0).toLocaleString("en");
export const few = (n) => (n >= 100 ? count(n) : (n ?? 0).toFixed(1));
export const share = (part, whole) => (whole ? `${Math.round(100 * part / whole)} %` : "–");

export function bytes(n = 0) {
	for (const unit of ["B", "kB", "MB", "GB"]) {
		if (n < 999.5)
			return `${unit === "B" || n >= 99.95 ? Math.round(n) : n.toFixed(1)} ${unit}`;
		n /= 1000;
	}
	return `${n.toFixed(1)} TB`;
}

export function seconds(s = 0) {
	if (s < 100)
		return `${s.toFixed(s < 10 ? 1 : 0)} s`;
	const m = Math.floor(s / 60);
	return m < 100 ? `${m} min ${Math.floor(s % 60)} s` : `${Math.floor(m / 60)} h ${m % 60} min`;
}

export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
export const nameOf = (session) => session.label || session.id.slice(0, 13);

export const SOURCES = ["recompute", "spill", "hidden", "project"];

/** {recompute: 2, spill: 0...} in words: "2 recompute". */
export const bySource = (filled = {}) =>
	SOURCES.filter((s) => filled[s]).map((s) => `${count(filled[s])} ${s}`).join(", ") || "none";

/** Shows a failure to everybody, or takes it away again (null). */
export function alertOf(failure) {
	const text = failure ? failure.message : "";
	$("alert").hidden = !text;
	say($("alert"), text);
}

/** Opens a dialog; its answer is the value of the button that closes it, or "". */
export function ask(dialog) {
	const form = dialog.querySelector("form");
	return new Promise((done) => {
		form.onsubmit = (e) => done(e.submitter.value);
		dialog.oncancel = () => done("");
		dialog.showModal();
	});
}
