"""Pages in a real browser: signing in, files that are no slides, jobs that end badly, and nothing from elsewhere."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

from annotation.slides.smear import draw_smear
from tests.browser.site import PASSWORD, ROOT, Site

WSI = ROOT / "../shared/data/wsi"
JOB_MILLISECONDS = 120_000
TRAINING_MILLISECONDS = 300_000

needs_real_files = pytest.mark.skipif(not WSI.is_dir(), reason="the shared slides are not on this machine")


@pytest.fixture(scope="module")
def smears(tmp_path_factory) -> Path:
    """Small slides of three patients, each with its truth beside it."""
    folder = tmp_path_factory.mktemp("drawn")
    for number in (1, 2, 3):
        draw_smear(folder, patient=f"T0{number}", seed=number, width=1536, height=1536)
    return folder


@pytest.fixture(scope="module")
def project(site: Site, smears: Path) -> int:
    """A project of the lead and the reader that has been through one short round."""
    site.manage("import_slides", str(smears), "--project", "Worked", "--lock", "T03")
    key = site.read(
        """
from annotation.services.projects import set_member
project = Project.objects.get(name="Worked")
for name, role in (("lead", "lead"), ("reader", "annotator")):
    set_member(project=project, member=User.objects.get(username=name), role=role, user=None)
answer = project.pk
"""
    )
    site.manage("import_truth", *(str(path) for path in sorted(smears.glob("*.json"))), "--project", "Worked")
    return key


@pytest.fixture
def empty_project(site: Site, request) -> int:
    """A project of the lead alone, without slides."""
    return site.read(
        f"""
from annotation.services.projects import create_project, create_taxonomy
from annotation.taxonomies import HCT
lead = User.objects.get(username="lead")
answer = create_project(name={request.node.name[:90]!r}, taxonomy=create_taxonomy(spec=HCT), lead=lead).pk
"""
    )


@pytest.fixture
def quiet(page: Page, site: Site) -> Iterator[Page]:
    """The lead's page; the test fails if a page complains on the console or asks another host for anything."""
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{page.url}: {message.type}: {message.text}")

    def asked(request: Request) -> None:
        if not request.url.startswith((f"{site.url}/", "data:", "blob:")):
            complaints.append(f"{page.url}: asks for {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    page.on("request", asked)
    yield page
    assert complaints == []
