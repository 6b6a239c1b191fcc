// The page: what the parts share is here, and the clock that keeps them up to date.

import { get, key } from "./api.js";
import { Chart } from "./chart.js";
import * as chat from "./chat.js";
import { $, alertOf, ask, bySource, bytes, count, few, figures, plural, say, seconds, share } from "./dom.js";
import * as memory from "./memory.js";
import * as sessions from "./sessions.js";
import * as theme from "./theme.js";

const EVERY = 1000, AGAIN = 3000; // ms between looks; after a failure

let chosen = null;    // id of the session that is shown
let following = true; // the chat's session, whichever it is: until another is chosen
let current = null;   // its object, as last seen
let before = null;    // {t, status} of the look before
let speed, acceptance, timer, looking = false;

function choose(id) {
	chosen = id;
	sessions.mark(id);
	if (!id)
		memory.update(null);
	else if (id !== current?.id)
		$("actions").hidden = true; // until it is known what they act on
}

const rate = (name, now, t) => (before && t > before.t
	? Math.max(0, (now[name] - before.status[name]) / (t - before.t)) : null);

function drawServer(status, t) {
	const made = rate("generated_tokens", status, t), asked = rate("prompt_tokens", status, t);
	const reused = rate("reused_tokens", status, t), drafted = rate("drafted", status, t);
	const read = asked === null ? null : Math.max(0, asked - reused);
	speed.push(t, [made, read]);
	acceptance.push(t, [drafted ? 100 * rate("accepted", status, t) / drafted : null]);
	before = { t, status };
	say($("server-line"), `${status.model} · ${plural(status.running, "request")} running, `
		+ `${count(status.waiting)} waiting`);
	const limit = status.memory_limit ? ` of ${bytes(status.memory_limit)}` : "";
	figures($("server-figures"), [
		["Memory", `${bytes(status.memory_bytes)}${limit}`], ["Resident set", bytes(status.rss_bytes)],
		["On disk", bytes(status.disk_bytes)],
		["Sessions", `${count(status.sessions)}, ${count(status.loaded)} in memory`],
		["Tokens made", count(status.generated_tokens)],
		["Tokens read", count(status.prompt_tokens - status.reused_tokens)],
		["Tokens reused", count(status.reused_tokens)],
		["Drafts accepted", share(status.accepted, status.drafted)],
		["Chunks restored", bySource(status.filled)], ["Fallbacks", count(status.fallbacks)],
		["Requests", `${count(status.requests)}, ${count(status.refused)} refused, ${count(status.failed)} failed`],
		["Up for", seconds(status.uptime_s)], ["Version", status.version],
	]);
}

async function drawMemory(t) {
	const id = chosen;
	if (!id)
		return;
	try {
		const [session, view] = await Promise.all(
			[get(`/v1/sessions/${id}`), get(`/v1/sessions/${id}/memory`)]);
		if (id === chosen)
			memory.update(current = session, view, t);
	} catch (e) {
		if (e.status !== 404)
			throw e;
		if (id === chosen) // it has been deleted
			choose(current = null);
	}
}

function connected(failure) {
	$("dot").className = failure ? "down" : "up";
	if (!failure)
		return;
	before = null;
	say($("server-line"), failure.status === 401 || failure.status === 403
		? "This server wants an API key." : failure.message);
	say($("sessions-none"), "Nothing is known without the server.");
}

async function look() {
	const t = Date.now() / 1000;
	const [status, list] = await Promise.all([get("/v1/status"), sessions.update()]);
	drawServer(status, t);
	const busy = following && chat.isRunning() && list.find((s) => s.busy);
	if (busy && busy.id !== chosen)
		choose(busy.id);
	await drawMemory(t);
}

/** Looks now, and again and again as long as the page is to be seen. */
async function refresh() {
	clearTimeout(timer);
	if (looking)
		return;
	looking = true;
	let failure = null;
	try {
		await look();
	} catch (e) {
		failure = e;
	}
	looking = false;
	connected(failure);
	if (!document.hidden)
		timer = setTimeout(refresh, failure ? AGAIN : EVERY);
}

async function askKey() {
	$("key").value = key.get();
	if (await ask($("key-dialog")) === "save") {
		key.set($("key").value.trim());
		alertOf(null);
		refresh();
	}
}

theme.start();
memory.start();
speed = new Chart($("speed"), [{ name: "made", colour: "window", dash: "solid" },
	{ name: "read", colour: "recompute", dash: "dashed" }], few);
acceptance = new Chart($("acceptance"), [{ name: "accepted", colour: "project", dash: "solid" }],
	(n) => `${Math.round(n)} %`, 100);
sessions.start((id) => {
	following = false;
	choose(id);
	refresh();
}, () => current && current.id === chosen ? current : null, refresh);
chat.start((id) => {
	if (!id) {
		following = true;
	} else if (following && id !== chosen) {
		choose(id);
	}
	refresh();
});
$("open-key").addEventListener("click", askKey);
document.addEventListener("visibilitychange", () => !document.hidden && refresh());
refresh();
