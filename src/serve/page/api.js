// The server: requests with the key, errors with their words, replies as they are written.

const NAME = "palimpsest.key";

export const key = {
	get: () => sessionStorage.getItem(NAME) ?? "",
	set: (value) => sessionStorage.setItem(NAME, value),
};

/** What went wrong, in words for a person. status 0: no answer at all. */
export class Failure extends Error {
	constructor(status, message) {
		super(message);
		this.status = status;
	}
}

async function refused(response) {
	let message = `The server answered ${response.status} ${response.statusText}`;
	try {
		message = (await response.json()).error.message ?? message;
	} catch {
		// Not from the server itself, and without a reason.
	}
	const wait = response.headers.get("Retry-After");
	return new Failure(response.status, wait ? `${message} (try again in ${wait} s)` : message);
}

/** A response that is fine; body: bytes, or an object that becomes JSON. Throws Failure. */
export async function request(method, path, body, signal) {
	const headers = {};
	if (key.get())
		headers.Authorization = `Bearer ${key.get()}`;
	if (body !== undefined && !(body instanceof Blob)) {
		headers["Content-Type"] = "application/json";
		body = JSON.stringify(body);
	}
	let response;
	try {
		response = await fetch(path, { method, headers, body, signal, cache: "no-store" });
	} catch (e) {
		if (e.name === "AbortError")
			throw e;
		throw new Failure(0, "The server does not answer.");
	}
	if (!response.ok)
		throw await refused(response);
	return response;
}

export const get = async (path) => (await request("GET", path)).json();
export const post = async (path, body = {}) => (await request("POST", path, body)).json();

/** The objects of a stream of server-sent events, as they come. Throws Failure. */
export async function* events(response) {
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	let text = "";
	for (;;) {
		const { value, done } = await reader.read();
		if (done)
			throw new Failure(0, "The reply was cut off.");
		text += value;
		const parts = text.split(/\r?\n\r?\n/);
		text = parts.pop();
		for (const part of parts) {
			const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:"))
				.map((line) => line.slice(5).trimStart()).join("\n");
			if (data === "[DONE]")
				return;
			if (!data)
				continue;
			const object = JSON.parse(data);
			if (object.error)
				throw new Failure(500, object.error.message);
			yield object;
		}
	}
}
