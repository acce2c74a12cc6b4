"""A stored picture as something a page can hold."""

from __future__ import annotations

import base64
import io
from typing import Any

SIDE, BYTES = 192, 20_000  # a larger picture is shown as a thumbnail
SIGNATURES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}


def is_picture(cell: Any) -> bool:
    """Whether a cell holds an encoded picture that browsers show and that cannot hold a script."""
    return isinstance(cell, bytes) and any(cell.startswith(mark) for mark in SIGNATURES)


def data_url(cell: bytes) -> tuple[str, bool]:
    """The picture as a data URL, and whether it is so small that its pixels should be seen."""
    from PIL import Image

    with Image.open(io.BytesIO(cell)) as picture:
        small = max(picture.size) <= 64
        kind = next(name for mark, name in SIGNATURES.items() if cell.startswith(mark))
        if len(cell) > BYTES or max(picture.size) > 2 * SIDE:
            picture.thumbnail((SIDE, SIDE))
            out = io.BytesIO()
            picture.convert("RGB").save(out, "JPEG", quality=85)
            cell, kind = out.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(cell).decode()}", small
