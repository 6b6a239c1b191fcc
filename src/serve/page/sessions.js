// The sessions of this key, latest first; one of them is chosen.

import { Failure, get, post, request } from "./api.js";
import { $, alertOf, ask, count, el, nameOf, plural, say } from "./dom.js";

const PAGE = 20;
const list = $("session-list");
let shown = PAGE, chosen = null, choose;

/** What it is doing, in words. */
export function stateOf(s) {
	if (s.interrupted)
		return `interrupted, ${plural(s.remaining, "token")} to go`;
	return s.busy ? "busy" : s.loaded ? "in memory" : "written out";
}

function item(id) {
	const fill = el("span");
	const button = el("button", { type: "button" }, el("span", { className: "name" }),
		el("span", { className: "more" }), el("span", { className: "more" }),
		el("span", { className: "bar", "aria-hidden": "true" }, fill));
	button.addEventListener("click", () => choose(id));
	const li = el("li", {}, button);
	li.dataset.id = id;
	return li;
}

function fill(li, s) {
	const button = li.firstChild, [name, state, room, bar] = button.children;
	say(name, nameOf(s));
	say(state, `${stateOf(s)} · log ${count(s.length)}`);
	const budget = s.budget_positions ? ` of ${count(s.budget_positions)}` : "";
	say(room, s.loaded ? `resident ${count(s.resident)}${budget}, evicted ${count(s.evicted)}`
		: "nothing resident");
	bar.firstChild.style.width = s.budget_positions ? `${100 * s.resident / s.budget_positions}%` : "0";
	s.id === chosen ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current");
}

/** Elements stay those of their session, so that the focus stays where it is. */
function draw({ data, total }) {
	const old = new Map([...list.children].map((li) => [li.dataset.id, li]));
	data.forEach((s, i) => {
		const li = old.get(s.id) ?? item(s.id);
		old.delete(s.id);
		fill(li, s);
		if (list.children[i] !== li) {
			const focus = li.contains(document.activeElement);
			list.insertBefore(li, list.children[i] ?? null);
			if (focus)
				li.firstChild.focus({ preventScroll: true });
		}
	});
	for (const li of old.values())
		li.remove();
	$("sessions-none").hidden = total > 0;
	say($("sessions-none"), "There is none yet. The first message makes one.");
	$("more").hidden = total <= data.length;
}

export async function update() {
	const page = await get(`/v1/sessions?limit=${shown}`);
	draw(page);
	return page.data;
}

export function mark(id) {
	chosen = id;
	for (const { dataset, firstChild } of list.children)
		dataset.id === id ? firstChild.setAttribute("aria-current", "true")
			: firstChild.removeAttribute("aria-current");
}

/** Runs what a button asks for; a failure is shown. Then all is looked at again. */
async function act(work, refresh) {
	try {
		alertOf(null);
		await work();
	} catch (e) {
		alertOf(e instanceof Failure ? e : new Failure(0, String(e.message ?? e)));
	}
	refresh();
}

async function fork(session) {
	$("fork-label").value = `${nameOf(session)} (fork)`.slice(0, 60);
	if (await ask($("fork-dialog")) !== "fork")
		return;
	const made = await post(`/v1/sessions/${session.id}/fork`, { label: $("fork-label").value });
	choose(made.id);
}

async function save(session) {
	const blob = await (await request("GET", `/v1/sessions/${session.id}/export`)).blob();
	const link = el("a", { href: URL.createObjectURL(blob), download: `${session.id}.palsession` });
	link.click();
	URL.revokeObjectURL(link.href);
	say($("said"), "The session was exported.");
}

async function remove(session) {
	say($("delete-what"), `${nameOf(session)}, a log of ${plural(session.length, "token")}, `
		+ "will be gone. Export it first to keep a copy.");
	if (await ask($("delete-dialog")) !== "delete")
		return;
	await request("DELETE", `/v1/sessions/${session.id}`);
	choose(null);
	$("sessions-title").closest("section").querySelector("button").focus();
}

async function load() {
	const [file] = $("import-file").files;
	$("import-file").value = "";
	if (!file)
		return;
	const made = await (await request("POST", "/v1/sessions/import", file)).json();
	choose(made.id);
	say($("said"), "The session was imported.");
}

/** chooses(id or null): a session is to be shown; current(): the one that is; refresh(): now. */
export function start(chooses, current, refresh) {
	choose = chooses;
	const with_ = (work) => () => current() && act(() => work(current()), refresh);
	$("fork").addEventListener("click", with_(fork));
	$("export").addEventListener("click", with_(save));
	$("delete").addEventListener("click", with_(remove));
	$("import").addEventListener("click", () => $("import-file").click());
	$("import-file").addEventListener("change", () => act(load, refresh));
	$("more").addEventListener("click", () => {
		shown += PAGE;
		refresh();
	});
}
