"""The Model of an index without torch: its ONNX form, run by onnxruntime, for a search in a second.

`index` writes the ONNX form beside the Model once, checked on the golden pictures (export.py).
Pictures are prepared by Pillow and NumPy in the steps of `Preprocessing`; Pillow's bilinear resize
and torch's differ by one in 255 at most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nearkin.data import pictures
from nearkin.files import parse_json


class Light:
    """Embeds photographs by a Model's ONNX form.

    Args:
        path: of the file that `export.to_onnx` wrote.

    Raises:
        ValueError: the file is no ONNX form of a Model.
        ImportError: onnxruntime is not installed.
    """

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # threads that wait by spinning take the cores from whoever decodes and searches meanwhile
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            facts = self.session.get_modelmeta().custom_metadata_map
            self.identity, self.metric = facts["nearkin.identity"], facts["nearkin.metric"]
            self.steps = parse_json(facts["nearkin.preprocessing"], "its preprocessing")
        except ImportError:
            raise
        except Exception as error:  # onnxruntime's errors have no common class
            why = " ".join(str(error).split())[:120]
            raise ValueError(f"{path} is not the ONNX form of a Model ({why})") from None

    def embed(self, paths: list[Path]) -> np.ndarray:
        """Embeddings (N, D) float32 of picture files."""
        return self.embed_pixels(np.stack([self.prepared(path) for path in paths]))

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Embeddings (N, D) float32 of prepared pictures (N, C, H, W) uint8."""
        return np.asarray(self.session.run(["embeddings"], {"pixels": pixels})[0])

    def prepared(self, path: Path) -> np.ndarray:
        """A picture file as (C, H, W) uint8."""
        resize = self.steps["resize"]
        reduce = self.steps.get("reduce", {"above": pictures.WHOLE, "spare": 0})
        channels, side = self.steps["decode"]["channels"], self.steps["shrink"]["short_side"]
        array = pictures.read(path, channels, side, reduce["above"], reduce["spare"])
        array = cropped(array, self.steps["crop"]["centre"])
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        size = (resize["width"], resize["height"])
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(image).reshape(size[1], size[0], -1).transpose(2, 0, 1)
        return 255 - pixels if self.steps["invert"] else pixels


def cropped(array: np.ndarray, share: float) -> np.ndarray:
    """The square in the middle of a picture whose side is this share of the short one; 0: all."""
    if not share:
        return array
    height, width = array.shape[:2]
    side = max(1, round(np.float32(min(height, width)) * np.float32(share)))
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(array[top : top + side, left : left + side])


def light_model(path: Path) -> Any:
    """The ONNX form of an index, or None where it, or onnxruntime, is missing."""
    if not path.is_file():
        return None
    try:
        return Light(path)
    except ImportError:
        return None
