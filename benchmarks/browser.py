"""A headless Chromium, driven through ChromeDriver: it opens pages, presses keys, runs scripts, takes pictures.

ChromeDriver speaks the W3C WebDriver protocol: JSON over HTTP. What is needed of it here is a few requests.
"""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Browser", "browser", "missing"]

_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
_PATIENCE = 30.0  # seconds until ChromeDriver must answer
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # ChromeDriver is on this machine


def missing() -> str | None:
    """What is not installed, as a reason to skip; None if nothing is missing."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(absent)}; on Debian: apt-get install chromium chromium-driver" if absent else None


class Browser:
    """A session of ChromeDriver.

    Args:
        address: of the session, without a slash at its end.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def open(self, file: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self._post("url", url=file.absolute().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns; ``arguments`` are its ``arguments``."""
        return self._post("execute/sync", script=script, args=list(arguments))

    def wait(self, script: str) -> Any:
        """What a script gives to its last argument, a function."""
        return self._post("execute/async", script=script, args=[])

    def press(self, selector: str, keys: str) -> None:
        """Focus an element, and press keys."""
        (element,) = self._post("element", using="css selector", value=selector).values()
        self._post(f"element/{element}/value", text=keys)

    def click(self, selector: str) -> None:
        """Click on an element."""
        (element,) = self._post("element", using="css selector", value=selector).values()
        self._post(f"element/{element}/click")

    def look(self, width: int, height: int, *, scheme: str = "light", media: str = "screen", scale: float = 1) -> None:
        """Change the window, the colour scheme and the medium."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media=media, features=features)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write a picture of the window, or of the whole page."""
        found = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._post("goog/cdp/execute", cmd=name, params=parameters)

    def _post(self, path: str, **body: Any) -> Any:
        return _request(f"{self._address}/{path}", body)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile, which ends with the context."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = ["chromedriver", "--port=0"]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert driver.stdout is not None
            port = next(line.split()[-1].rstrip(".") for line in driver.stdout if "successfully on port" in line)
            options = {"binary": shutil.which("chromium"), "args": [*_ARGUMENTS, f"--user-data-dir={folder}"]}
            wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
            base = f"http://127.0.0.1:{port}/session"
            session = _request(base, wanted)["sessionId"]
            try:
                yield Browser(f"{base}/{session}")
            finally:
                _request(f"{base}/{session}", None)
        finally:
            driver.terminate()
            driver.communicate()  # reads the rest, and closes the pipe


def _request(address: str, body: dict[str, Any] | None) -> Any:
    """The value that ChromeDriver answers to a POST of ``body``, or to a DELETE if it is None."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, method="DELETE" if body is None else "POST")
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            with _direct.open(request, timeout=_PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from error
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
