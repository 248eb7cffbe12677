import shutil
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from PIL import Image

from annotation.models import Patient, Project, Slide
from tests import factories

pytestmark = pytest.mark.django_db

WSI = Path(__file__).resolve().parents[3] / "../shared/data/wsi"


def import_slides(*paths, **options):
    out, err = StringIO(), StringIO()
    call_command(
        "import_slides", *map(str, paths), **({"project": "Marrow"} | options), stdout=out, stderr=err, no_color=True
    )
    return out.getvalue(), err.getvalue()


def test_it_makes_the_project_and_imports_the_file(smear):
    out, err = import_slides(smear)
    project = Project.objects.get(name="Marrow")
    assert "imported  T01.tif: patient T01, 9 tiles" in out
    assert err == ""
    assert project.taxonomy.classes.count() == 19
    assert project.slides.get().tiles.count() == 9


def test_it_goes_on_after_a_refused_file_and_ends_with_an_error(smear, tmp_path):
    shutil.copy(smear, tmp_path / "b.tif")
    shutil.copy(WSI / "small.svs", tmp_path / "a.svs")
    (tmp_path / "empty.svs").touch()
    (tmp_path / "notes.txt").write_text("not a slide")
    err = StringIO()
    with pytest.raises(CommandError, match="2 of 3 slides refused"):
        call_command("import_slides", str(tmp_path), project="Marrow", stdout=StringIO(), stderr=err, no_color=True)
    assert "a.svs is 16 x 16 px" in err.getvalue()
    assert "empty.svs" in err.getvalue()
    assert [slide.name for slide in Slide.objects.all()] == ["b.tif"]
    assert [patient.code for patient in Patient.objects.all()] == ["b"]


def test_it_refuses_the_same_slide_twice(smear):
    import_slides(smear)
    with pytest.raises(CommandError, match="1 of 1 slides refused"):
        import_slides(smear)
    assert Slide.objects.count() == 1


def test_it_locks_patients(smear):
    import_slides(smear, lock="T01")
    assert Patient.objects.get().locked


def test_a_patient_to_lock_must_be_there(smear):
    with pytest.raises(CommandError, match="no patient X9"):
        import_slides(smear, lock="X9")


def test_a_patient_in_a_batch_is_not_locked_any_more(smear):
    import_slides(smear)
    project = Project.objects.get()
    factories.make_batch(project, project.slides.get().tiles.all())
    with pytest.raises(CommandError, match="can no longer change"):
        import_slides(WSI / "cmu-1-small-region.svs", lock="T01")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CommandError, match=r"absent\.svs: no such file"):
        import_slides(tmp_path / "absent.svs")


def test_a_taxonomy_that_cannot_be_read_is_named(smear, tmp_path):
    path = tmp_path / "classes.json"
    path.write_text("{}")
    with pytest.raises(CommandError, match=r"classes\.json"):
        import_slides(smear, taxonomy=str(path))
    assert not Project.objects.exists()


def test_facts_are_kept(smear):
    import_slides(smear, patient="P-9", site="sternum", preparation="crush", mpp=0.26)
    slide = Slide.objects.get()
    assert (slide.patient.code, slide.site, slide.preparation, slide.mpp) == ("P-9", "sternum", "crush", 0.26)


def test_it_imports_a_folder_of_plain_images(tmp_path):
    for name in ("a.png", "b.jpg", "c.bmp", "d.webp", "e.tif"):
        Image.effect_noise((90, 60), 60).convert("RGB").save(tmp_path / name)
    Image.new("RGB", (20, 20)).save(tmp_path / "icon.png")
    out, err = StringIO(), StringIO()
    with pytest.raises(CommandError, match="1 of 6 slides refused"):
        call_command("import_slides", str(tmp_path), project="Marrow", stdout=out, stderr=err, no_color=True)
    assert "imported  a.png: patient a, 1 tile, " in out.getvalue()
    assert "icon.png is 20 x 20 px" in err.getvalue()
    assert [patient.code for patient in Patient.objects.all()] == ["a", "b", "c", "d", "e"]


def test_one_patient_can_be_stated_for_all_images(tmp_path):
    for name in ("a.png", "b.png"):
        Image.effect_noise((90, 60), 60).convert("RGB").save(tmp_path / name)
    import_slides(tmp_path, patient="P-4", mpp=0.1)
    assert Patient.objects.get().slides.filter(mpp=0.1, tiling="image").count() == 2


@pytest.mark.parametrize(("folder", "count"), [("bccd", 250), ("pbc_boxes", 475)])
def test_every_image_of_the_real_sets_is_imported(folder, count):
    _, err = import_slides(WSI.parent / folder / "images")
    assert err == ""
    assert Slide.objects.filter(tiling="image", mpp=None).count() == Patient.objects.count() == count
