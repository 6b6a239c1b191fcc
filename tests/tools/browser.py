"""A page in a headless Chromium, driven over its DevTools protocol through a pair of pipes."""
import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
KEYS = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), "Escape": ("Escape", 27, ""),
        " ": ("Space", 32, " ")}


def find():
    """The program, or None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One page. `complaints`: errors of its console; `requests`: every address that it asked for."""

    def __init__(self, program, folder, timeout=60):
        self.timeout, self.count, self.raw = timeout, 0, b""
        self.answers, self.complaints, self.requests = {}, [], []
        ours, theirs = os.pipe(), os.pipe()  # it reads what comes on 3, and writes to 4
        inner = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in (ours[0], theirs[1])]
        os.close(ours[0]), os.close(theirs[1])
        self.to, self.answer = ours[1], theirs[0]

        def move():
            os.dup2(inner[0], 3), os.dup2(inner[1], 4)
        # Its sandbox needs rights that containers do not give, and root may not run with it.
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--hide-scrollbars", f"--user-data-dir={folder}",
             "about:blank"], pass_fds=(3, 4), preexec_fn=move, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in inner:
            os.close(fd)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(domain + ".enable")

    def close(self):
        os.close(self.to), os.close(self.answer)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _event(self, method, p):
        if method == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning"):
            self.complaints.append(str([a.get("value", a.get("description")) for a in p["args"]]))
        elif method == "Runtime.exceptionThrown":
            details = p["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.complaints.append(f"{p['entry']['text']} {p['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(p["request"]["url"])

    def pump(self, timeout):
        """Takes in what comes within timeout seconds; false when nothing did."""
        if not select.select([self.answer], [], [], timeout)[0]:
            return False
        data = os.read(self.answer, 1 << 20)
        if not data:
            raise AssertionError("the browser has ended")
        *messages, self.raw = (self.raw + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self._event(message["method"], message["params"])
        return True

    def call(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        end = time.monotonic() + self.timeout
        while self.count not in self.answers:
            if time.monotonic() > end:
                raise AssertionError(f"{method} has no answer")
            self.pump(0.5)
        answer = self.answers.pop(self.count)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def get(self, script):
        """The value of an expression of JavaScript; promises are waited for."""
        got = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in got:
            raise AssertionError(f"{script}: {got['exceptionDetails']['exception'].get('description')}")
        return got["result"].get("value")

    def wait(self, script):
        """Waits until the expression is true; returns its value."""
        end = time.monotonic() + self.timeout
        while not (value := self.get(script)):
            if time.monotonic() > end:
                raise AssertionError(f"this did not become true: {script}; complaints: {self.complaints}")
            self.pump(0.05)
        return value

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def press(self, name, shift=False):
        code, number, text = KEYS[name]
        more = {"key": name, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 * shift}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **more)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def look(self, width, height, dark=False, still=False):
        """The size of the window, and what a person has asked of the system."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}])

    def screenshot(self, path, whole=False):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))
