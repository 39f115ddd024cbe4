"""Jobs whose result is put together of others': each part is a request of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from phosphene import __version__
from phosphene.explain.grids import check_subject
from phosphene.jobs.inputs import Loaded, check_photo, load_objectives
from phosphene.jobs.large import refuse_large_parts
from phosphene.jobs.pages import PageJob
from phosphene.jobs.parts import MOST_PARTS, count_parts, parts_of
from phosphene.jobs.request import Request
from phosphene.recipes.base import PartToDraw
from phosphene.zoo import load_network

if TYPE_CHECKING:
    from phosphene.network import Network


@dataclass
class GridJob(PageJob):
    """A job of a recipe for pages that is put together of pictures of another: see `Job`.

    parts: the requests, in order. networks: by name, each loaded once.
    """

    parts: list[Request] = field(default_factory=list)
    networks: dict[str, Network] = field(default_factory=dict)

    def prepare_parts(self, *, allow: Collection[str], large: bool, recorded: bool) -> None:
        """Make the requests, load their networks, and see that there is what they name."""
        self.request = self.request.pinned()
        settings, own = self.arguments.settings, self.arguments.network
        count = count_parts(settings, own)
        if not large and count > MOST_PARTS:
            one = parts_of(self.request, settings, own, first=True)
            refuse_large_parts(one, count, MOST_PARTS)
        self.parts = parts_of(self.request, settings, own)
        if not large:
            refuse_large_parts(self.parts, count, MOST_PARTS)
        if not recorded:
            for part in self.parts:
                check_photo(part, part.checked_settings())
        self._load_networks(allow)
        self._check_subjects()

    def _load_networks(self, allow: Collection[str]) -> None:
        from phosphene.jobs.runner import refuse_unasked

        self.networks = {self.request.network: self.arguments.network}
        names = list(dict.fromkeys(part.network for part in self.parts))
        for name in names:
            if name not in self.networks:
                refuse_unasked(name, allow)
        for name in names:
            if name not in self.networks:
                self.networks[name] = load_network(name)

    def _check_subjects(self) -> None:
        """Errors of what is not there: before the first part is drawn, and not in the last hour."""
        seen: set[Any] = set()
        for part in self.parts:
            network = self.networks[part.network]
            settings = part.checked_settings(network.architecture)
            named = (part.objectives, part.layers) if part.objectives or part.layers else settings
            if (part.network, repr(named)) in seen:
                continue
            seen.add((part.network, repr(named)))
            goals = load_objectives(part, part.objectives, Loaded())
            check_subject(part.declaration, network, settings, goals, part.layers)

    def steps(self) -> Iterator[Any]:
        """The recipe's steps, which draw what is not kept of the parts."""
        drawn = tuple(PartToDraw(self._begun(part), self._key(part)) for part in self.parts)
        return self.recipe.run(replace(self.arguments, parts=drawn))

    def _key(self, part: Request) -> str:
        whole = part.key(self.networks[part.network].fingerprint)
        return hashlib.sha256(f"{__version__} {whole}".encode()).hexdigest()

    def _begun(self, part: Request) -> Any:
        from phosphene.jobs.runner import prepare

        def begin() -> Iterator[Any]:
            network = self.networks[part.network]
            # What may not be begun unasked was seen to before.
            cache = self.arguments.cache
            job = prepare(part, network=network, large=True, recorded=True, cache=cache)
            return job.steps()

        return begin
