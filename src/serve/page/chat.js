// The conversation: messages, and answers as they are generated.

import { Failure, events, request } from "./api.js";
import { $, alertOf, bySource, count, el, few, plural, seconds, share } from "./dom.js";

const NAME = "palimpsest.conversation";
const transcript = $("transcript"), message = $("message"), settings = $("settings");
const names = { user: "You", assistant: "Answer" };

let messages = []; // {role, content, usage?}: usage in words
let running = null; // AbortController of the answer that is being made
let follow; // as in start()

// What is read aloud: whole sentences, not tokens.
const speaker = {
	text: "",
	add(piece) {
		this.text += piece;
		const end = this.text.search(/[.!?:;\n](?=\s)[^.!?:;\n]*$/);
		if (end >= 60)
			this.flush(end + 1);
	},
	flush(n = this.text.length) {
		const text = this.text.slice(0, n).trim();
		this.text = this.text.slice(n);
		if (text)
			$("said").replaceChildren(el("p", {}, text));
	},
};

const atEnd = () => transcript.scrollHeight - transcript.scrollTop - transcript.clientHeight < 40;
function toEnd() {
	transcript.scrollTop = transcript.scrollHeight;
}

function show({ role, content, usage }) {
	$("empty").hidden = true;
	const article = el("article", { className: role }, el("h3", {}, names[role]),
		el("p", { className: "text" }, content));
	if (usage)
		article.append(el("p", { className: "usage" }, usage));
	transcript.append(article);
	toEnd();
	return article;
}

function keep() {
	try {
		sessionStorage.setItem(NAME, JSON.stringify(messages));
	} catch {
		// It is too long to be kept: then it is gone when the page is loaded again.
	}
}

function asked() {
	const body = { stream: true, stream_options: { include_usage: true } };
	for (const field of settings.querySelectorAll("input"))
		if (field.value !== "")
			body[field.name] = Number(field.value);
	const system = settings.querySelector("[name=system]").value;
	body.messages = messages.map(({ role, content }) => ({ role, content }));
	if (system)
		body.messages.unshift({ role: "system", content: system });
	return body;
}

/** What happened, in a line. */
function inWords(usage, took, why) {
	const p = usage?.palimpsest;
	const parts = [];
	if (why)
		parts.push(why);
	if (usage)
		parts.push(`${plural(usage.completion_tokens, "token")} in ${seconds(took)}`);
	if (p) {
		const made = p.ms?.generate / 1000;
		if (made > 0)
			parts.push(`${few(usage.completion_tokens / made)} tokens/s`);
		parts.push(`${count(p.tokens_reused)} reused, ${count(p.tokens_reread)} read`,
			`log ${count(p.log_length)}, resident ${count(p.resident)}, evicted ${count(p.evicted)}`,
			`restored chunks: ${bySource(p.restored_chunks)}`);
		if (p.fallbacks)
			parts.push(plural(p.fallbacks, "fallback"));
		if (p.drafted)
			parts.push(`drafts accepted ${share(p.accepted, p.drafted)}`);
		if (p.note)
			parts.push(p.note);
	}
	return parts.join(" · ");
}

/** Streams the answer into article; returns {content, usage, reason}, also when it was stopped. */
async function read(response, article) {
	const text = article.querySelector(".text").firstChild;
	const got = { content: "", usage: null, reason: null };
	let thought = null;
	try {
		for await (const chunk of events(response)) {
			const choice = chunk.choices?.[0], stay = !atEnd();
			const piece = choice?.delta?.content ?? "", mind = choice?.delta?.reasoning_content;
			if (mind) {
				thought ??= article.insertBefore(el("p", { className: "thought" }, ""), text.parentNode);
				thought.append(mind);
			}
			got.content += piece;
			text.appendData(piece);
			speaker.add(piece);
			got.reason = choice?.finish_reason ?? got.reason;
			if (chunk.usage) {
				got.usage = chunk.usage;
				follow(got.usage.palimpsest?.session);
			}
			if (!stay)
				toEnd();
		}
	} catch (e) {
		got.failure = e;
	}
	return got;
}

function busy(is) {
	$("send").hidden = is;
	$("stop").hidden = !is;
	$("new").disabled = is;
}

const reasons = { length: "cut off at the limit of tokens", content_filter: "filtered" };

async function answer() {
	const start = performance.now();
	const response = await request("POST", "/v1/chat/completions", asked(), running.signal);
	const article = show({ role: "assistant", content: "" });
	article.setAttribute("aria-busy", "true");
	const got = await read(response, article);
	const stopped = got.failure?.name === "AbortError";
	speaker.flush();
	article.removeAttribute("aria-busy");
	const why = stopped ? "stopped" : got.failure ? got.failure.message : reasons[got.reason];
	const usage = inWords(got.usage, (performance.now() - start) / 1000, why);
	if (usage)
		article.append(el("p", { className: "usage" }, usage));
	messages.push({ role: "assistant", content: got.content, usage });
	keep();
	toEnd();
	if (got.failure && !stopped)
		throw got.failure;
}

async function send() {
	const content = message.value.trim();
	if (running || !content)
		return;
	alertOf(null);
	messages.push({ role: "user", content });
	const mine = show(messages.at(-1));
	message.value = "";
	running = new AbortController();
	busy(true);
	try {
		await answer();
	} catch (e) {
		if (messages.at(-1).role === "user") { // nothing came: it can be sent again
			messages.pop();
			mine.remove();
			$("empty").hidden = messages.length > 0;
			message.value ||= content;
		}
		if (e.name !== "AbortError")
			alertOf(e instanceof Failure ? e : new Failure(0, `The reply is not understood: ${e.message}`));
	} finally {
		const was = document.activeElement === $("stop");
		running = null;
		busy(false);
		if (was)
			message.focus();
	}
}

function restart() {
	messages = [];
	keep();
	alertOf(null);
	for (const article of transcript.querySelectorAll("article"))
		article.remove();
	$("empty").hidden = false;
	message.focus();
	follow();
}

const stop = () => running?.abort();

export const isRunning = () => running !== null;

/** follows: called with the id of the conversation's session, or without one when it is new. */
export function start(follows) {
	follow = follows;
	$("compose").addEventListener("submit", (e) => {
		e.preventDefault();
		send();
	});
	message.addEventListener("keydown", (e) => {
		if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
			e.preventDefault();
			send();
		}
	});
	$("chat").addEventListener("keydown", (e) => e.key === "Escape" && stop());
	$("stop").addEventListener("click", stop);
	$("new").addEventListener("click", restart);
	try {
		messages = JSON.parse(sessionStorage.getItem(NAME) ?? "[]");
	} catch {
		messages = [];
	}
	messages.forEach(show);
}
