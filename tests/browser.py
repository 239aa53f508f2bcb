"""A real Chromium without a window, and what it sees of a page. Spoken to by its own protocol, over one socket."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
LOOK = """(() => {
  const shown = e => e.getClientRects().length > 0;
  const light = colour => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return a ? (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255 : null;
  };
  const style = getComputedStyle(document.body), root = getComputedStyle(document.documentElement);
  return {
    width: document.documentElement.scrollWidth,
    wide: [...document.body.querySelectorAll("*")]
      .filter(e => shown(e) && e.getBoundingClientRect().right > innerWidth + 1).slice(0, 8)
      .map(e => `${e.tagName}.${e.className}`),
    without_text: [...document.images].filter(e => !(e.alt || "").trim() && e.getAttribute("role") != "presentation")
      .map(e => e.src.slice(0, 80)),
    broken: [...document.images].filter(e => e.complete && !e.naturalWidth && shown(e)).map(e => e.src.slice(0, 80)),
    background: light(style.backgroundColor) ?? light(root.backgroundColor) ?? 1,
    text: light(style.color),
    landmarks: ["header", "main", "footer"].filter(name => document.querySelector(name)),
    headings: document.querySelectorAll("h1").length,
    language: document.documentElement.lang,
    viewport: document.querySelector("meta[name=viewport]")?.content ?? "",
  };
})()"""


@dataclass
class Seen:
    """One visit. errors: of the console and of scripts. outside: addresses asked for that are no local files.

    look: what `LOOK` returns: width of the page and elements wider than the window, images without a text or that did
    not load, brightness (0..1) of background and text, landmarks, number of main headings, language, viewport.
    """

    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    look: dict[str, Any] = field(default_factory=dict)


class Browser:
    """Start it with a folder for its profile; `close` it."""

    def __init__(self, folder: Path) -> None:
        import websocket

        program = next(filter(None, map(shutil.which, PROGRAMS)))
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--hide-scrollbars", "--disable-background-networking", "--remote-debugging-port=0"]
        options += [f"--user-data-dir={folder}"]
        self.process = subprocess.Popen(
            [program, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port_file, deadline = folder / "DevToolsActivePort", time.monotonic() + 60
        while not (port_file.is_file() and len(port_file.read_text().splitlines()) == 2):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{program} did not start within a minute, or ended with {self.process.poll()}")
            time.sleep(0.1)
        port, path = port_file.read_text().splitlines()
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=60, suppress_origin=True)
        self.count, self.session, self.events = 0, "", []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one request; what the page says meanwhile is kept in `events`."""
        self.count += 1
        about = {"sessionId": self.session} if self.session else {}
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters, **about}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def visit(self, page: Path, width: int = 360, dark: bool = False) -> Seen:
        """Open a local page in a window of that width until it is loaded, and look at it."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))
        look = self.ask("Runtime.evaluate", expression=LOOK, returnByValue=True)["result"]["value"]
        return Seen(self._errors(), self._outside(), look)

    def picture(self, path: Path) -> None:
        """Write the whole page that is open as a PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=60)

    def _errors(self) -> list[str]:
        found = []
        for event in self.events:
            told = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(told["exceptionDetails"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
                found.append(" ".join(str(each.get("value", each.get("description"))) for each in told["args"]))
            elif event["method"] == "Log.entryAdded" and told["entry"]["level"] == "error":
                found.append(f"{told['entry']['text']} {told['entry'].get('url', '')}".strip())
        return found

    def _outside(self) -> list[str]:
        requests = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        asked = [each["request"]["url"] for each in requests]
        return [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
