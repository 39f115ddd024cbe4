"""Jobs whose result is a page, which `explain.layout` lays out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene import image as images
from phosphene.errors import ImageError
from phosphene.jobs.compare import compare_page
from phosphene.jobs.events import Compared, Event, Note, Progress, Saved
from phosphene.jobs.job import Job, Outcome, undisturbed
from phosphene.manifest import capture
from phosphene.manifest import schema as m


@dataclass
class PageJob(Job):
    """A job of a recipe for pages: see `Job`."""

    def tell(self, step: Any) -> Iterator[Event]:
        """How far it is; each text says all that the ones before it said."""
        yield Progress(step, cumulative=True)

    def outcome(self, step: Any) -> Outcome:
        """The page."""
        return Outcome(step, page=self.recipe.result(step))

    def save(self, outcome: Outcome) -> tuple[list[Saved], list[Note]]:
        """Write the page and its data, with the manifest inside."""
        from phosphene.explain.layout import save_page

        notes = [Note(text, detail) for text, detail in getattr(outcome.step, "remarks", ())]
        files = [("page", target.path) for target in self.targets]
        if data := self.request.outputs.get("data"):
            files.append(("data", Path(data)))
        manifest, text = None, None
        try:
            _, manifest = self.page_recorded(outcome)
            text = manifest.text()
        except ImageError as error:  # too large as a picture, and it may be none
            pixels = any(path.suffix.lower() in images.SUFFIXES for _, path in files)
            if pixels or any(target.recipe for target in self.targets):
                raise
            notes.append(Note(f"the recipe is left out: {error}"))
        saved = []

        def save(path: Path) -> None:
            save_page(outcome.page, path, recipe=text, overwrite=self.force)

        for kind, path in files:
            saved.append(Saved(kind, self.saved_beside(path, save, notes)))
        for target in self.targets if manifest else ():
            saved += self.save_recipe(target, manifest, notes)
        return saved, notes

    def compared(
        self, outcome: Outcome, old: m.Manifest, file: Path, output: Path | None
    ) -> tuple[list[Event], m.Manifest]:
        """Compare the page with that of the manifest and with the file."""
        from phosphene.explain.layout import save_page

        picture, new = self.page_recorded(outcome)
        events: list[Event] = []
        if output:
            with undisturbed():
                save_page(outcome.page, output, recipe=new.text(), overwrite=self.force)
            events.append(Saved("page", output))
        events.append(Compared(compare_page(old, new, outcome.page, picture, file)))
        return events, new

    def page_recorded(self, outcome: Outcome) -> tuple[Tensor, m.Manifest]:
        """A page's pixels `(1, 3, H, W)`, and its manifest: settings as they were resolved."""
        from phosphene.explain.layout import pixels

        page, picture = outcome.page, pixels(outcome.page)
        parsed = self.recipe.subject is not None and self.recipe.subject.parsed
        # An objective's pictures are named by their roles in the request, by their paths elsewhere.
        subject = self.subject() if parsed else page.subject
        manifest = self.manifest(outcome, page.settings, subject, capture.result_of(picture))
        return picture, manifest
