"""A real headless Chromium that reaches no network, for the tests that look at pages."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
WIDE, PHONE = (1280, 800), (390, 844)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium that deploy/chromium.sh finds or unpacks."""
    done = subprocess.run(["deploy/chromium.sh"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=done.stdout.strip(), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, size=WIDE, scheme: str = "light", offline: bool = True) -> Iterator[Page]:
    """Open a page, wait until its pictures are drawn, and afterwards hold it to a clean console and a quiet network."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, offline=offline)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.wait_for_function("document.documentElement.dataset.ready !== 'no'")
    try:
        yield page
        assert said == []
        origin = "/".join(url.split("/")[:3])
        assert [u for u in asked if not u.startswith((origin, "data:", "blob:"))] == []
    finally:
        context.close()


def accessibility_findings(page: Page) -> list[str]:
    """Return what axe finds serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0].get('failureSummary', '')}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
