"""What ran, on which inputs, and what came of it: the recipe that lies inside every output.

A `Manifest` is a request without paths, plus what came of it. It holds no time, place, user or
path, so that the same dream is the same file, and a file can be given away. `schema` says what it
holds and needs no torch; `capture` writes one down.
"""

from __future__ import annotations

from phosphene.manifest.schema import Manifest as Manifest

__all__ = ["Manifest"]
