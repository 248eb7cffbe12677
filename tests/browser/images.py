"""A plain image as a project of its own: for editor tests that need other classes or sizes than the smear has."""

from collections.abc import Sequence
from pathlib import Path

from tests.browser.editing import Editing, PreLabel


def import_image(editing: Editing, path: Path, *, taxonomy: Path | None = None) -> int:
    """A project of lead and reader with the image as its only tile; without a file of classes, with the usual 19."""
    made: int = editing.site.read(
        f"""
from pathlib import Path
from annotation.models import Role
from annotation.services.projects import create_project, create_taxonomy, set_member
from annotation.services.slides import SlideFacts, import_slide
from annotation.taxonomies import HCT, read_taxonomy
path, classes = Path({str(path)!r}), {taxonomy and str(taxonomy)!r}
taxonomy = create_taxonomy(spec=read_taxonomy(Path(classes)) if classes else HCT)
project = create_project(name=path.name, taxonomy=taxonomy, lead=User.objects.get(username="lead"))
set_member(project=project, member=User.objects.get(username="reader"), role=Role.ANNOTATOR, user=None)
import_slide(project=project, paths=[path], name=path.name, facts=SlideFacts(patient="T09"), user=None)
answer = project.pk
"""
    )
    return made


def image_batch(editing: Editing, project: int, labels: Sequence[PreLabel]) -> int:
    """An open batch of the project's only tile with these pre-labels."""
    drawn = [(*label.box, label.score) for label in labels]
    made: int = editing.site.read(
        f"""
from tests.factories.pre_labelled import make_pre_labelled_batch
project = Project.objects.get(pk={project})
tiles = [Tile.objects.get(slide__project=project)]
name = f"Batch {{project.batches.count() + 1}}"
answer = make_pre_labelled_batch(project=project, name=name, tiles=tiles, boxes=[{drawn!r}]).pk
"""
    )
    return made
