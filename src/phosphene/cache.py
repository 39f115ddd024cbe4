"""The folder that downloads and drawings are kept in."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Where downloads are kept: `$PHOSPHENE_CACHE`, or the user's cache folder."""
    given = os.environ.get("PHOSPHENE_CACHE")
    folder = given or platformdirs.user_cache_dir("phosphene", appauthor=False)
    return Path(folder).expanduser()
