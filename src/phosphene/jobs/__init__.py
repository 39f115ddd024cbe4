"""Jobs: what anyone asks for, run, saved and replayed.

A `Request` is JSON and needs no torch; `run` gives events. The command line is a consumer of these
like any other.

>>> from phosphene import jobs
>>> told = [event.json()["event"] for event in jobs.run(jobs.Request.read("job.json"))]
>>> told[-2:]
['saved', 'ended']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phosphene.jobs.events import Compared as Compared
from phosphene.jobs.events import Ended as Ended
from phosphene.jobs.events import Note as Note
from phosphene.jobs.events import Preview as Preview
from phosphene.jobs.events import Progress as Progress
from phosphene.jobs.events import Saved as Saved
from phosphene.jobs.events import Started as Started
from phosphene.jobs.request import InputFile as InputFile
from phosphene.jobs.request import Request as Request
from phosphene.lazy import lazy_names

if TYPE_CHECKING:
    from phosphene.jobs.expand import expand as expand
    from phosphene.jobs.job import Job as Job
    from phosphene.jobs.replayer import replay as replay
    from phosphene.jobs.runner import prepare as prepare
    from phosphene.jobs.runner import run as run

_HOMES = {
    "Job": f"{__name__}.job",
    "expand": f"{__name__}.expand",
    "prepare": f"{__name__}.runner",
    "replay": f"{__name__}.replayer",
    "run": f"{__name__}.runner",
}

__all__ = ["Compared", "Ended", "InputFile", "Job", "Note", "Preview", "Progress", "Request",
           "Saved", "Started", "expand", "prepare", "replay", "run"]  # fmt: skip

# All but `expand` import torch, which a request does not need.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
