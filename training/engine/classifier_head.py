"""Only the head of a classifier trained again: seconds, so that pre-labels can be renewed while a batch is read."""

# mypy: disable-error-code="no-untyped-call"

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.engine.classifier import ClassifierFacts, load_classifier, save_classifier, to_input
from inference.engine.runtime import Cores, torch_device
from training.engine.classifier_trainer import (
    WEIGHTS_NAME,
    Cells,
    balanced_accuracy,
    class_weights,
    cut_cells,
)
from training.engine.dataset import TrainingTile
from training.engine.progress import Cancelled, TrainingError, shortages_told

BATCH = 64
STEPS = 200  # of L-BFGS at most; it ends by itself long before
FAITH = 0.03  # in the head that was: the larger, the nearer to it the new one stays


def retrain_head(
    start: Path,
    train: Sequence[TrainingTile],
    validation: Sequence[TrainingTile],
    classes: Sequence[str],
    folder: Path,
    *,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
    ignored: Collection[int] = (),
    balance: float = 0.5,
    device: str = "auto",
    threads: int | None = None,
) -> tuple[Path, float | None]:
    """Fit the head of the classifier in `start` to the cells of the tiles; its backbone stays as it is.

    Returns the path of the new classifier, folder / "classifier.pt", and its mean accuracy over the classes of the
    validation's cells. The fit is a multinomial logistic regression on the backbone's features of each cell and of its
    mirror image, with a Gaussian prior around the head that was (maximum a posteriori). The same cells give the same
    head. `on_progress` is told crops done and all crops.
    Raises Cancelled, TrainingError if there is no cell, the classes differ or there is too little memory or disk,
    WeightsError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, facts = load_classifier(start)
    if facts.classes != tuple(classes):
        raise TrainingError(f"The classifier names {', '.join(facts.classes)}, which are not the taxonomy's classes.")
    with shortages_told(folder, _no_memory(facts)):
        cells = cut_cells(train, facts, folder / "train", ignored, should_stop=should_stop)
        held_out = cut_cells(validation, facts, folder / "validation", ignored, should_stop=should_stop)
        if not len(cells):
            raise TrainingError("There is not a single box to train on: confirm some boxes first.")
        chosen = torch_device(device)
        cores = Cores(threads)
        model = model.to(chosen).to(memory_format=torch.channels_last).eval()
        features = _features(model, facts, cells, chosen, cores, on_progress, should_stop)
        weights = torch.from_numpy(np.tile(class_weights(cells.class_ids, balance), 2) / 2)
        target = torch.from_numpy(np.tile(cells.class_ids, 2))
        _fit(model.get_classifier(), features, target.to(chosen), weights.to(chosen))
        save_classifier(model, facts, folder / WEIGHTS_NAME)
        return folder / WEIGHTS_NAME, balanced_accuracy(model, facts, held_out, chosen)


def _no_memory(facts: ClassifierFacts) -> str:
    return (
        f"There is not enough memory to train a head on the backbone {facts.backbone}: free some, or train a round "
        "with a smaller backbone."
    )


def _features(
    model: Any,
    facts: ClassifierFacts,
    cells: Cells,
    device: torch.device,
    cores: Cores,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> torch.Tensor:
    """What the head sees of every cell, then of every cell's mirror image: float32 (2 n, features)."""
    plain: list[torch.Tensor] = []
    mirrored: list[torch.Tensor] = []
    for start in range(0, len(cells), BATCH):
        if should_stop():
            raise Cancelled
        cores.share()
        images = to_input(torch.tensor(cells.crops[start : start + BATCH], device=device), facts)
        with torch.no_grad():
            for views, kept in ((images, plain), (images.flip(3), mirrored)):
                kept.append(model.forward_head(model.forward_features(views), pre_logits=True))
        on_progress(min(start + BATCH, len(cells)), len(cells))
    return torch.cat([*plain, *mirrored])


def _fit(head: Any, features: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> None:
    """Minimise the weighted cross entropy plus FAITH / 2 times the squared distance to where the head was."""
    parameters = list(head.parameters())
    before = [one.detach().clone() for one in parameters]
    optimizer = torch.optim.LBFGS(parameters, max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        errors = torch.nn.functional.cross_entropy(head(features), target, reduction="none")
        distance = sum(((one - old) ** 2).sum() for one, old in zip(parameters, before, strict=True))
        total: torch.Tensor = (weights * errors).sum() + FAITH / 2 * distance
        total.backward()
        return total

    optimizer.step(loss)
