"""Images in folders, one folder a class."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pyarrow as pa
from pydantic import Field

from luodi.core.errors import LuodiError, nearest
from luodi.core.rows import Rows
from luodi.core.source import Source
from luodi.data.reading.aside import Aside, judged
from luodi.data.reading.kept import bytes_type, kept, key_of

ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"))


class Folder(Source):
    """Images in folders whose names are the classes: the columns image (bytes as in the file), label and file.

    Every image is decoded once, so that a damaged one is found now and not during training: it is told and kept aside.
    Pillow alone: `datasets` would take 7 CPU seconds to import and stop at the first damaged file.
    """

    path: str
    label: Literal["top", "nearest"] = "top"  # the folder right below `path`, or the one that the file lies in
    bad_rows: float = Field(0.05, ge=0, le=1)  # largest share of images that cannot be read; more stops

    def open(self, cache: Path) -> Rows:
        """All readable images, ordered by their path. Raises LuodiError when there are none."""
        root = Path(self.path)
        if not root.is_dir():
            near = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
            raise LuodiError(f"folder: no folder {root}; {nearest(root.name, near)}")
        files = list(images(root))
        if not files:
            raise LuodiError(f"folder: no images below {root}; looked for {', '.join(sorted(ENDINGS))}")
        # Names, sizes and times instead of all bytes, which would be read at every start: an edit changes one of them.
        states = [(str(file.relative_to(root)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        key = key_of("folder", self.label, states)
        rows = kept(cache, key, lambda: self._read(root, files, cache / "tables" / f"{key}.aside.jsonl"))
        judged(rows.table, str(root), self.bad_rows)
        return rows

    def kept(self, cache: Path) -> Rows | None:
        with TemporaryDirectory(prefix="luodi-look-") as elsewhere:  # the rows stay mapped when the folder is gone
            return self.open(Path(elsewhere))

    def _read(self, root: Path, files: list[Path], path: Path) -> pa.Table:
        aside = Aside()
        pictures, labels, names = [], [], []
        for file in files:
            name = file.relative_to(root)
            data = file.read_bytes()
            if len(name.parts) < 2:
                aside.add(str(name), "lies in no class folder")
            elif why := broken(data):
                aside.add(str(name), why)
            else:
                pictures.append(data)
                labels.append(name.parts[0 if self.label == "top" else -2])
                names.append(name.as_posix())
        columns = {
            "image": pa.array(pictures, bytes_type(sum(map(len, pictures)))),
            "label": pa.array(labels, pa.string()),
            "file": pa.array(names, pa.string()),
        }
        return aside.marked(pa.table(columns), path)


def images(root: Path) -> Iterator[Path]:
    """Every file with an image's ending below a folder, in the order of their paths; hidden ones are left out."""
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix.lower() in ENDINGS and not hidden and path.is_file():
            yield path


def broken(data: bytes) -> str | None:
    """Why these bytes are no image that can be decoded; None: they are."""
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")  # of a large image: the field has its own limit
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return "the file is empty" if not data else f"no readable image: {str(error).split(' <')[0]}"
    return None
