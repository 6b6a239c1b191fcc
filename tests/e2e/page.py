#!/usr/bin/python3
"""Drives the web page in a headless Chromium as a person would, and prints TAP.

page.py PAL MODEL FOLDER [unittest arguments]; screenshots are written to FOLDER
"""
import glob
import json
import os
import sys
import tempfile
import unittest
import urllib.request

import browser
from serving import Server
from tap import TapRunner

PAL, MODEL, SHOTS = (os.path.abspath(a) for a in sys.argv[1:4])
PROGRAM = browser.find()
KEY = "a-key-for-this-test"
SIZES = {"wide": (1500, 950), "middle": (1000, 900), "phone": (390, 844)}

# What a screen reader and weak eyes need, of all that is to be seen: a list of what is wrong.
ACCESSIBLE = r"""(() => {
const bad = [], seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length;
const name = (e) => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '') + ' ' + e.textContent.trim().slice(0, 40);
const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
	return [...canvas.getImageData(0, 0, 1, 1).data]; };
const light = (c) => c.slice(0, 3).map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
	.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
	if (c[3] === 255) return c; } return [255, 255, 255]; };
for (const e of document.querySelectorAll('body *')) {
	if (!seen(e) || e.closest('noscript, .unseen')) continue;
	const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
	const style = getComputedStyle(e);
	if (own && !e.closest(':disabled')) {
		const r = ratio(rgba(style.color), ground(e));
		if (r < 4.5) bad.push(`contrast ${r.toFixed(2)}: ${name(e)}`);
	}
	if (e.matches('svg [data-kind], .legend svg line')) {
		const r = ratio(rgba(style.color), ground(e));
		if (r < 3) bad.push(`contrast ${r.toFixed(2)}: ${e.outerHTML.slice(0, 80)}`);
	}
	if (e.matches('button, a, summary') && !(e.textContent.trim() || e.ariaLabel)) bad.push('no name: ' + name(e));
	if (e.matches('input, textarea, select') && !e.labels?.length && !e.ariaLabel) bad.push('no label: ' + name(e));
	if (e.matches('button, input') && e.getBoundingClientRect().height < 24) bad.push('too small: ' + name(e));
	if (e.matches('[role=img], [role=region], section, main, dialog, nav') && !e.ariaLabel
		&& !document.getElementById(e.getAttribute('aria-labelledby'))) bad.push('no name: ' + name(e));
	if (e.matches('svg:not([role=img]), canvas') && !e.closest('[role=img], [aria-hidden=true]'))
		bad.push('a picture without words: ' + e.outerHTML.slice(0, 80));
	for (const a of ['aria-labelledby', 'aria-describedby'])
		if (e.hasAttribute(a) && !document.getElementById(e.getAttribute(a))) bad.push(`${a} of nothing: ${name(e)}`);
	if (e.matches('[style]') && e.scrollWidth > innerWidth) bad.push('too wide: ' + name(e));
}
const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
for (const id of ids.filter((id, i) => ids.indexOf(id) !== i)) bad.push('id twice: ' + id);
let level = 0;
for (const h of [...document.querySelectorAll('h1, h2, h3, h4')].filter(seen)) {
	if (+h.tagName[1] > level + 1) bad.push('a level of headings is missing before ' + name(h));
	level = +h.tagName[1];
}
if (!document.documentElement.lang) bad.push('no language');
if (document.querySelectorAll('main').length !== 1) bad.push('not one main');
if (document.documentElement.scrollWidth > innerWidth) bad.push('the page is wider than the window');
return bad;
})()"""


def element(name):
    return f"document.getElementById('{name}')"


class Case(unittest.TestCase):
    options = ()

    def setUp(self):
        if not PROGRAM:
            self.skipTest("no Chromium: one of " + ", ".join(browser.PROGRAMS))
        self.server = Server(PAL, MODEL, "--window", 64, "--restored", 2, *self.options)
        self.addCleanup(self.server.close)
        if b"/page/app.js" not in self.server_page():
            self.skipTest("this pal was built without its page: npm could not bring uPlot")
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.page = browser.Browser(PROGRAM, folder.name)
        self.addCleanup(self.page.close)
        self.page.look(*SIZES["wide"])
        self.page.open(self.server.url + "/")
        self.page.wait(f"{element('dot')}.className !== ''")

    def server_page(self):
        with urllib.request.urlopen(self.server.url + "/", timeout=60) as r:
            self.headers = r.headers
            return r.read()

    def text(self, name):
        return self.page.get(f"{element(name)}.textContent")

    def settings(self, **values):
        for name, value in values.items():
            self.page.get(f"document.querySelector('#settings [name={name}]').value = {value}")

    def say(self, text):
        """Types and sends, from the keyboard alone."""
        self.page.get(f"{element('message')}.focus()")
        self.page.type(text)
        self.page.press("Enter")

    def answered(self, n):
        self.page.wait(f"document.querySelectorAll('article.assistant .usage').length === {n}"
                       f" && !{element('send')}.hidden")

    def shot(self, name):
        self.page.get("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.page.screenshot(os.path.join(SHOTS, name + ".png"))

    def fine(self, complaints=()):
        """No complaints but those expected, and nothing asked of anybody else."""
        for text in self.page.complaints:
            self.assertTrue(any(c in text for c in complaints), text)
        others = {u for u in self.page.requests if not u.startswith((self.server.url, "blob:" + self.server.url))}
        self.assertEqual(others, set())


class Page(Case):
    def test_a_conversation(self):
        """Chat, its session, its memory: they grow, are evicted, and come back, as is shown."""
        page = self.page
        self.assertIn("default-src 'self'", self.headers["Content-Security-Policy"])
        page.wait(f"{element('sessions-none')}.textContent.includes('none yet')")
        self.shot("empty")
        self.settings(max_tokens=24, temperature=0)
        self.say("The code of the copper whale is 4719. " + "The sea is wide and the day is long. " * 30)
        self.answered(1)
        self.assertEqual(page.get("document.querySelectorAll('article.user').length"), 1)
        usage = page.get("document.querySelector('.usage').textContent")
        self.assertRegex(usage, r"24 tokens in .* tokens/s · 0 reused, \d+ read · log \d+, resident \d+")
        page.wait("document.querySelectorAll('#session-list li').length === 1")
        page.wait(f"!{element('memory-shown')}.hidden")
        self.say("What is the code of the copper whale?")
        self.answered(2)
        usage = page.get("[...document.querySelectorAll('.usage')].at(-1).textContent")
        self.assertRegex(usage, r"· [1-9][\d,]* reused, \d+ read .* restored chunks: \d+ \w+")
        status, session = self.server.ask("GET", "/v1/sessions")
        session = session["data"][0]
        self.assertEqual(status, 200)
        self.assertGreater(session["evicted"], 0)
        self.assertGreater(session["restored"], 0)
        page.wait(f"{element('memory-figures')}.textContent.includes('Log{session['length']:,}')")
        self.memory(session)
        for name, size in SIZES.items():
            page.look(*size)
            self.shot(name + "-light")
            self.assertEqual(page.get(ACCESSIBLE), [], name)
            page.look(*size, dark=True)
            self.shot(name + "-dark")
            self.assertEqual(page.get(ACCESSIBLE), [], name + ", dark")
        self.fine()

    def memory(self, session):
        page = self.page
        kinds = page.get("[...document.querySelectorAll('#strip [data-kind]')].map((e) => e.dataset.kind)")
        for kind in ("sink", "evicted", "window"):
            self.assertIn(kind, kinds)
        self.assertTrue(set(kinds) & {"recompute", "spill", "hidden", "project"})
        words = page.get("document.querySelector('.in-words').textContent")
        self.assertRegex(words, r"Resident: the first tokens, 0 to 3, and the window, [\d,]+ to "
                         rf"{session['length'] - 1:,}\. Evicted: .* Brought back of that: \d+")
        page.wait("document.querySelectorAll('#growth canvas').length === 1")
        page.get("document.querySelector('#growth summary').click()")
        page.wait("document.querySelectorAll('#growth tbody tr').length > 2")
        row = page.get("[...document.querySelectorAll('#growth tbody tr:first-child td')].map((e) => e.textContent)")
        self.assertEqual(row[1:], [f"{session[k]:,}" for k in ("length", "resident", "budget_positions")])
        self.assertGreater(page.get(f"{element('events')}.tBodies[0].rows.length"), 0)
        page.get("document.querySelector('#back summary').click()")
        page.wait("/[a-z]{3}/.test(document.querySelector('#back .text').textContent) &&"
                  " document.querySelector('#back .text').textContent !== 'Loading …'")

    def test_sessions(self):
        """Fork, export, import, delete: each after its question."""
        page = self.page
        self.settings(max_tokens=4)
        self.say("One session")
        self.answered(1)
        page.wait(f"!{element('actions')}.hidden")
        page.get(f"{element('fork')}.click()")
        page.get(f"{element('fork-label')}.value = '<b>a copy</b>'")
        page.get("document.querySelector('#fork-dialog .main').click()")
        page.wait(f"{element('memory-title')}.textContent === 'Memory of <b>a copy</b>'")
        page.wait("document.querySelectorAll('#session-list li').length === 2")
        self.assertEqual(page.get("document.querySelectorAll('#session-list b').length"), 0)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=folder.name)
        page.get(f"{element('export')}.click()")
        page.wait(f"{element('said')}.textContent.includes('exported')")
        while not (files := glob.glob(folder.name + "/*.palsession")):
            page.pump(0.05)
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        node = page.call("DOM.querySelector", nodeId=root, selector="#import-file")["nodeId"]
        page.call("DOM.setFileInputFiles", files=files, nodeId=node)
        page.wait("document.querySelectorAll('#session-list li').length === 3")
        for answer, left in (("[value=cancel]", 3), (".danger", 2)):
            page.wait(f"!{element('actions')}.hidden")
            page.get(f"{element('delete')}.click()")
            self.assertRegex(self.text("delete-what"), r"a log of \d+ tokens, will be gone")
            page.get(f"document.querySelector('#delete-dialog {answer}').click()")
            page.wait(f"document.querySelectorAll('#session-list li').length === {left}")
        self.assertEqual(self.server.ask("GET", "/v1/sessions")[1]["total"], 2)
        self.fine(["404"])  # of the session that has just been deleted

    def test_stop_and_begin_anew(self):
        page = self.page
        self.settings(max_tokens=1000000, temperature=0)
        usages = "[...document.querySelectorAll('.usage')].map((e) => e.textContent)"
        for n in range(1, 100):  # an answer may be over before Escape comes
            self.say(f"Go on and on and on {n}")
            page.wait("[...document.querySelectorAll('article.assistant .text')].at(-1)?.textContent.length > 9"
                      f" && document.querySelectorAll('article').length === {2 * n}")
            page.press("Escape")
            self.answered(n)
            if page.get(usages)[-1].startswith("stopped"):
                break
        else:
            self.fail("no answer could be stopped")
        page.open(self.server.url + "/?again")
        page.wait(f"document.querySelectorAll('article').length === {2 * n}")  # it was kept
        page.get(f"{element('new')}.click()")
        self.assertEqual(page.get("document.querySelectorAll('article').length"), 0)
        self.assertFalse(page.get(f"{element('empty')}.hidden"))
        self.settings(max_tokens=0)
        self.say("Refused")
        page.wait(f"!{element('alert')}.hidden")
        self.assertEqual(page.get(f"{element('message')}.value"), "Refused")
        self.shot("refused")
        self.fine(["400"])

    def test_keyboard(self):
        """Everything is reached with Tab, in the order of the page, and the focus is seen."""
        page, seen = self.page, []
        page.get("document.activeElement.blur()")
        for _ in range(40):
            page.press("Tab")
            what, outline = page.get(
                "[document.activeElement.id || document.activeElement.textContent.trim().slice(0, 30),"
                " getComputedStyle(document.activeElement).outlineStyle]")
            if what in seen or page.get("document.activeElement === document.body"):
                break
            seen.append(what)
            self.assertNotEqual(outline, "none", what)
        for what in ("Skip to the message", "open-key", "theme", "transcript", "message", "send", "import"):
            self.assertIn(what, seen)
        self.assertLess(seen.index("message"), seen.index("send"))
        page.get(f"{element('open-key')}.focus()")
        page.press("Enter")
        self.assertEqual(page.get("document.activeElement.id"), "key")
        page.press("Escape")
        self.assertEqual(page.get("document.activeElement.id"), "open-key")
        page.get(f"{element('message')}.focus()")
        page.type("one")
        page.press("Enter", shift=True)
        page.type("two")
        self.assertEqual(page.get(f"{element('message')}.value"), "one\ntwo")

    def test_theme(self):
        page = self.page
        ground = "getComputedStyle(document.documentElement).backgroundColor"
        light = page.get(ground)
        page.look(*SIZES["wide"], dark=True)
        dark = page.get(ground)
        self.assertNotEqual(light, dark)
        page.wait(f"{element('theme')}.ariaPressed === 'true'")
        page.get(f"{element('theme')}.click()")
        self.assertEqual(page.get(ground), light)
        page.open(self.server.url + "/?again")
        page.wait(f"{ground} === {json.dumps(light)}")
        page.look(*SIZES["wide"], still=True)
        self.assertEqual(page.get("(() => { const a = document.createElement('article');"
                                  " a.ariaBusy = 'true'; a.innerHTML = '<p class=text>x</p>';"
                                  " document.body.append(a); const n ="
                                  " getComputedStyle(a.firstChild, '::after').animationName;"
                                  " a.remove(); return n; })()"), "none")

    def test_server_that_ends(self):
        self.server.close()
        self.page.wait(f"{element('dot')}.className === 'down'")
        self.assertIn("does not answer", self.text("server-line"))
        self.say("Is anybody there?")
        self.page.wait(f"!{element('alert')}.hidden")
        self.assertIn("does not answer", self.text("alert"))
        self.shot("gone")


class Keys(Case):
    def setUp(self):
        f = tempfile.NamedTemporaryFile("w", suffix=".keys")
        self.addCleanup(f.close)
        f.write(KEY + "\n")
        f.flush()
        self.options = ("--api-key-file", f.name)
        super().setUp()

    def test_key(self):
        page = self.page
        page.wait(f"{element('server-line')}.textContent.includes('wants an API key')")
        page.get(f"{element('open-key')}.click()")
        self.shot("key")
        page.type(KEY)
        page.press("Enter")
        page.wait(f"{element('dot')}.className === 'up'")
        self.assertFalse(page.get(f"{element('key-dialog')}.open"))
        self.settings(max_tokens=3)
        self.say("Hello")
        self.answered(1)
        self.fine(["401"])


if __name__ == "__main__":
    os.makedirs(SHOTS, exist_ok=True)
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]], testRunner=TapRunner)
