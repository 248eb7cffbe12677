"""Files of a training that are either the old ones or whole new ones, whenever the process is killed."""

import io
import os
from pathlib import Path
from typing import Any

import torch

STATE_NAME = "last.pt"
WEIGHTS_NAME = "weights.pt"


def load_state(path: Path, identity: str) -> dict[str, Any] | None:
    """The state in a file, if it belongs to this very training."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # written atomically, so damaged by other means: start anew rather than never again
        return None
    return state if state.get("identity") == identity else None


def save(content: dict[str, Any], path: Path) -> None:
    """Write a torch file so that it is whole or not there."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    growing = path.with_suffix(".writing")
    with growing.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    growing.replace(path)
