// Dark or light: the system's choice, until a person makes another.

import { $ } from "./dom.js";

const NAME = "palimpsest.theme";
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = [];

const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

function changed() {
	$("theme").setAttribute("aria-pressed", isDark());
	for (const f of listeners)
		f();
}

export const onTheme = (f) => listeners.push(f);

/** What a custom property says now, as a colour for a canvas. */
export function colour(name) {
	const probe = document.body.appendChild(document.createElement("i"));
	probe.style.color = `var(--${name})`;
	const value = getComputedStyle(probe).color;
	probe.remove();
	return value;
}

export function start() {
	const chosen = localStorage.getItem(NAME);
	if (chosen)
		root.dataset.theme = chosen;
	$("theme").addEventListener("click", () => {
		root.dataset.theme = isDark() ? "light" : "dark";
		localStorage.setItem(NAME, root.dataset.theme);
		changed();
	});
	system.addEventListener("change", changed);
	changed();
}
