"""A studio in this process, one served for real, and a headless Chromium before it."""

import contextlib
import json
import os
import shutil
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from mscaflax.data import scenes

COLOURS = np.array([*scenes.PALETTE, (0, 0, 0)], np.uint8)
PATIENCE = 120  # seconds; compiling on a busy machine takes its time


@pytest.fixture(scope="session")
def studio(tiny_run):
    """A Studio of the toy model."""
    from mscaflax import Synthesizer
    from mscaflax.apps.studio.service import Studio

    return Studio(Synthesizer.from_workdir(tiny_run))


@pytest.fixture(scope="session")
def client(studio):
    """A client of that studio's application, in this process."""
    from starlette.testclient import TestClient

    from mscaflax.apps.studio.server import build_app

    app = build_app(studio, warm=False)
    with TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def serving():
    """`with serving(app) as url`: an ASGI application on a free port of this machine."""
    import uvicorn

    @contextlib.contextmanager
    def serve(app):
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
            finally:
                server.should_exit = True
                thread.join()

    return serve


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium of 1280x800 that saves downloads in tmp_path/downloads: a Selenium driver."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its driver (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver

    # Selenium looks for browsers and reports its use on the network unless told not to.
    os.environ.update(SE_OFFLINE="true", SE_AVOID_STATS="true")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,800",
    ):  # fmt: skip
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


class Page:
    """The page as a person has it: clicks, strokes, files."""

    def __init__(self, driver, url, downloads):
        self.driver, self.downloads = driver, downloads
        driver.get(url)
        self.until(lambda: self.body("ready") == "true" and self.pictures == 1)

    def until(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited for nothing; the page says {self.message!r}"
            time.sleep(0.05)

    def body(self, name):
        return self.driver.execute_script(f"return document.body.dataset.{name}")

    @property
    def pictures(self):
        return int(self.body("pictures") or 0)

    @property
    def message(self):
        return self.driver.execute_script(
            "const m = document.getElementById('message');"
            "return m.hidden ? '' : m.firstElementChild.textContent"
        )

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def click(self, selector):
        self.find(selector).click()

    def pick(self, id):
        self.find(f"#palette button:nth-child({id + 1})").click()

    def another_picture(self, action):
        """Does something, and waits until a picture that came of it is there and no other is under way."""
        before = self.pictures
        action()
        self.until(lambda: self.pictures > before)
        settled = self.pictures
        time.sleep(0.6)
        while settled != self.pictures:
            settled = self.pictures
            time.sleep(0.6)

    def stroke(self, *places):
        """Presses the mouse on the first pixel of the map, moves over the others and lets go."""
        box = self.driver.execute_script(
            "const c = document.getElementById('map'); c.scrollIntoView({block: 'nearest'});"
            "const b = c.getBoundingClientRect();"
            "return [b.left, b.top, b.width / c.width, b.height / c.height]"
        )
        left, top, dx, dy = box
        points = [(left + (x + 0.5) * dx, top + (y + 0.5) * dy) for x, y in places]
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def hover(self, selector, u, v):
        """Moves the mouse to a place of what is shown, both in 0..1; outside of them is beside it."""
        x, y = self.driver.execute_script(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'nearest'});"
            "const b = e.getBoundingClientRect();"
            "return [b.left + arguments[1] * b.width, b.top + arguments[2] * b.height]",
            selector, u, v,
        )  # fmt: skip
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    def canvas(self, selector="#map"):
        """The pixels of a canvas, uint8 [h, w, 3]."""
        return self.pixels(selector)[..., :3]

    def pixels(self, selector):
        """The pixels of a canvas with their opacity, uint8 [h, w, 4]."""
        width, height, data = self.driver.execute_script(
            "const c = document.querySelector(arguments[0]);"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return [c.width, c.height, Array.from(d)]",
            selector,
        )
        return np.array(data, np.uint8).reshape(height, width, 4)

    def ids(self):
        """The label map on the canvas, int [h, w]: every pixel has exactly the colour of a class."""
        found = (self.canvas()[..., None, :] == COLOURS).all(axis=-1)
        assert found.any(axis=-1).all()
        return found.argmax(axis=-1)

    def download(self, selector="#download", name="picture.png"):
        self.find(selector).click()
        path = self.downloads / name
        self.until(lambda: path.is_file() and path.stat().st_size > 0)
        time.sleep(0.2)
        pixels = np.asarray(Image.open(path).convert("RGB"))
        path.unlink()
        return pixels


@pytest.fixture
def page(studio, serving, browser, tmp_path):
    """The Page of that studio; it must have asked no one else, and logged no error."""
    from mscaflax.apps.studio.server import build_app

    with serving(build_app(studio, warm=False)) as url:
        yield Page(browser, url, tmp_path / "downloads")
        requested = [
            json.loads(entry["message"])["message"]["params"].get("request", {}).get("url", "")
            for entry in browser.get_log("performance")
            if '"Network.requestWillBeSent"' in entry["message"]
        ]
        assert len(requested) > 8
        # chrome: and chrome-untrusted: are the browser's own first tab.
        known = (url, f"blob:{url}", "data:", "chrome:", "chrome-untrusted:")
        assert {address for address in requested if not address.startswith(known)} == set()
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"
                and "422" not in entry["message"]] == []  # fmt: skip
