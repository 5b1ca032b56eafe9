"""Takes docs/pictures/studio.png: `python docs/make_studio_screenshot.py`; `--help` for other views.

Needs the extras `studio` and `test`, and Chromium with its driver (Debian: chromium, chromium-driver).
"""

import argparse
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from selenium import webdriver

from mscaflax.apps.studio.server import build_app
from mscaflax.apps.studio.service import Studio
from mscaflax.apps.synthesizer import Synthesizer

_POINT = """
const box = document.getElementById("picture").getBoundingClientRect();
const at = {clientX: box.left + arguments[0] * box.width, clientY: box.top + arguments[1] * box.height};
document.getElementById("picture").dispatchEvent(new PointerEvent("pointermove", at));
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", help="of `mscaflax train` (default: the model that ships)")
    parser.add_argument("--output", default=Path(__file__).parent / "pictures" / "studio.png", type=Path)
    parser.add_argument("--size", default="1280,800", help="of the window (default: 1280,800)")
    parser.add_argument("--dark", action="store_true", help="as for who prefers dark pages")
    parser.add_argument("--whole", action="store_true", help="the whole page, not what fits into the window")
    parser.add_argument("--mix", action="store_true", help="with a second photo, mixed with the first")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--regions", action="store_true", help="with the regions in colour, nothing pointed at"
    )
    shown.add_argument(
        "--point",
        default="0.08,0.53",
        metavar="U,V",
        help="point at this place of the picture, both in 0..1 (default: a palm)",
    )
    args = parser.parse_args()

    studio = Studio(Synthesizer.from_workdir(args.workdir))
    # The time that the page shows should be that of a picture, not of compiling.
    for exemplars in range(1, 2 + args.mix):
        studio.warm(studio.sizes[0], exemplars)
    app = build_app(studio, warm=False)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening, tempfile.TemporaryDirectory() as profile:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        driver = _chromium(args, profile)
        try:
            driver.get(f"http://127.0.0.1:{listening.getsockname()[1]}/")
            _prepare(driver, args)
            _save(driver, args)
        finally:
            driver.quit()
            server.should_exit = True
            thread.join()
    print(args.output)


def _chromium(args, profile):
    # Selenium looks for browsers and reports its use on the network unless told not to.
    os.environ.update(SE_OFFLINE="true", SE_AVOID_STATS="true")
    width, height = map(int, args.size.split(","))
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--hide-scrollbars",
    ):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if args.dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    return driver


def _prepare(driver, args):
    wait_for_picture(driver, 1)
    if args.mix:
        driver.execute_script("document.querySelector('#slots .add').click()")
        driver.execute_script("document.querySelector('#exemplars button:nth-child(3)').click()")
        wait_for_picture(driver, 2)
    if args.regions:
        driver.execute_script("document.getElementById('regions').click()")
    else:
        driver.execute_script(_POINT, *map(float, args.point.split(",")))
    time.sleep(0.5)


def wait_for_picture(driver, count):
    """Waits until the page has shown so many pictures; minutes, where a busy machine compiles."""
    end = time.monotonic() + 600
    while int(driver.execute_script("return document.body.dataset.pictures || 0")) < count:
        if time.monotonic() > end:
            raise TimeoutError(driver.execute_script("return document.getElementById('message').textContent"))
        time.sleep(0.1)


def _save(driver, args):
    if args.whole:
        height = driver.execute_script("return document.documentElement.scrollHeight")
        width = int(args.size.split(",")[0])
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        time.sleep(0.3)
    driver.save_screenshot(str(args.output))


if __name__ == "__main__":
    main()
