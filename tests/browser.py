"""A headless Chromium that looks at one page, as wide and in such colours as a test asks, or the reason to skip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HOW = "apt-get install chromium chromium-driver"
# Nothing here may go to the network, and a root user in a container has no sandbox to use.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

# Every place is a rectangle in the viewport, in pixels.
PLACES = """return [...document.querySelectorAll(arguments[0])].map(found => {
    const {left, right, top, bottom} = found.getBoundingClientRect();
    return {left, right, top, bottom, text: found.textContent, shown: found.checkVisibility()};
});"""
# [text, its colour, the colour behind it] of everything that is read.
INKS = """
const behind = (one) => {
    for (; one; one = one.parentElement) {
        const colour = getComputedStyle(one).backgroundColor;
        if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
};
const read = [...document.querySelectorAll('h1, h2, h3, p, dt, dd, dd span, th, td, li, .chart text')];
return read.filter(one => one.textContent).map(one => {
    const style = getComputedStyle(one);
    return [one.textContent, one.matches('text') ? style.fill : style.color, behind(one)];
});"""


class Browser:
    """One tab. What it is asked runs in the page, beside the page's own policy."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(self, page: Path, *, width: int, scheme: str = "light", media: str = "screen") -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        wanted = {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        self._driver.get(page.as_uri())

    def ask(self, script: str, *arguments: Any) -> Any:
        return self._driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """What the console was told since the last call, of any level."""
        return [entry["message"] for entry in self._driver.get_log("browser")]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A fresh browser; ``profile`` is an empty folder of its own."""
    found, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if found is None or driver is None:
        pytest.skip(f"no Chromium with its driver here: {HOW}")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[test]'")
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Browser(browser)
    finally:
        browser.quit()


def contrast(ink: list[Any]) -> float:
    one, other = sorted(luminance(colour) for colour in ink[1:])
    return (other + 0.05) / (one + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(…)`, as WCAG defines it."""
    shares = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
