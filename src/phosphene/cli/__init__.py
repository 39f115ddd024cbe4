"""The command line: `phosphene VERB`.

Exit codes: 0 done, 1 it could not be done, 2 the command or a setting is wrong, 3 a replay came out
different, 130 interrupted. Results go to stdout, everything else to stderr. Nothing here imports
torch before a verb needs it, so that help and mistakes are answered at once.
"""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnusedCliTokensError

from phosphene import __version__
from phosphene.errors import PhospheneError, SettingsError
from phosphene.runtime.allocator import large_pages
from phosphene.runtime.memory import out_of_memory

DONE, FAILED, MISUSED, DIFFERENT, INTERRUPTED = 0, 1, 2, 3, 130

EPILOGUE = """Examples:

  phosphene dream sky.jpg                      gives sky-dream.png, beside it
  phosphene dream sky.jpg -o out.webp --objective "2*mixed4b + mixed4d:42"
  phosphene dream sky.jpg --guide flowers.jpg --keep-colors
  phosphene dream --start noise --size 512     without a photo
  phosphene visualize mixed4c:12               what a unit responds to
  phosphene visualize logits:dumbbell --network dreamnet-robust --batch 4
  phosphene caricature lion.jpg                what a layer sees in it
  phosphene invert lion.jpg --layer mixed4d    what it still knows of it
  phosphene accentuate lion.jpg mixed4c:12     what excites the unit there
  phosphene style lion.jpg flowers.jpg         in the other's textures
  phosphene sheet dreamnet mixed4c             every channel of a layer, on one page
  phosphene unit dreamnet mixed4c:42 --pictures photos   one of them, from four sides
  phosphene layers dreamnet                    what can be dreamt
  phosphene objectives                         how to say it
  phosphene networks --all                     with which networks
  phosphene presets                            as who published it
  phosphene replay sky-dream.png               does it come out the same here?

Any verb takes --help, and --debug for the traceback of an error.
"""

app = App(
    name="phosphene",
    help="See what a neural network sees.",
    help_epilogue=EPILOGUE,
    help_format="plaintext",
    version=f"phosphene {__version__}",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # it would exit without a word
)


def _verb(name: str, function: str, told: str, *examples: str) -> None:
    # By name: what a verb needs is imported when it is called.
    lines = "\n".join(f"  phosphene {example}" for example in examples)
    plural = "s" if len(examples) > 1 else ""
    app.command(
        f"phosphene.cli.{function}",
        name=name,
        help=told,
        help_epilogue=f"Example{plural}:\n\n{lines}\n",
    )


_verb(
    "dream",
    "dreaming:verb",
    "Ask a network what it sees in a picture, and show more of it.",
    "dream sky.jpg",
    'dream sky.jpg -o out.webp --objective "2*mixed4b + mixed4d:42"',
    "dream sky.jpg --guide flowers.jpg --mask sky-only.png --keep-colors",
    "dream sky.jpg --preset google2015 --network googlenet",
    "dream --start noise --size 512 -o noise.png",
)
_verb(
    "visualize",
    "visualizing:visualize",
    "Draw what a unit of a network responds to, from noise.",
    "visualize mixed4c:12",
    "visualize logits:dumbbell --network dreamnet-robust --batch 4",
    "visualize mixed4c:12 --negative",
    'visualize mixed4c:1 mixed4c:2 "mixed4c:1 + mixed4c:2" -o sums.png',
    'visualize mixed4c:1 mixed4c:2 -o "{}.png"',
)
_verb(
    "caricature",
    "visualizing:caricature",
    "Draw what a layer sees in a photo, larger than life.",
    "caricature lion.jpg",
    "caricature lion.jpg --layer mixed3b --layer mixed4d",
)
_verb(
    "invert",
    "visualizing:invert",
    "Draw what a layer still knows of a photo.",
    "invert lion.jpg",
    "invert lion.jpg --layer conv2 --layer mixed4d --layer mixed5b",
)
_verb(
    "accentuate",
    "visualizing:accentuate",
    "Show in a photo what excites a unit there.",
    "accentuate lion.jpg mixed4c:12",
    "accentuate lion.jpg logits:lion --network dreamnet-robust --leash 2",
)
_verb(
    "style",
    "visualizing:style",
    "Draw the things of a photo in the textures of a painting.",
    "style lion.jpg flowers.jpg",
    "style lion.jpg flowers.jpg --style-weight 3 --painting-size 256",
)
_verb(
    "sheet",
    "explaining:sheet",
    "Draw every channel of a layer on one page.",
    "sheet dreamnet mixed4c",
    "sheet dreamnet-robust logits --columns 14 -o classes.svg",
    "sheet dreamnet mixed4c --top 8 lion.jpg",
)
_verb(
    "unit",
    "explaining:unit",
    "Draw the card of a unit: what it draws, and which photos excite it most and least.",
    "unit dreamnet mixed4c:42 --pictures photos",
    "unit dreamnet-robust dumbbell --pictures photos -o dumbbell.svg --data dumbbell.json",
)
_verb(
    "replay",
    "replaying:verb",
    "Make again what a picture's recipe says, and say whether it is the same.",
    "replay sky-dream.png",
    "replay sky-dream.png --input photo=pictures/sky.jpg -o again.png",
)
_verb(
    "layers",
    "listing:layers",
    "The layers of a network: what can be dreamt.",
    "layers",
    "layers vgg16 --depth 1 --size 427x640",
)
_verb(
    "networks",
    "listing:networks",
    "The networks that have a name, and whether their weights are here.",
    "networks --all",
)
_verb("presets", "listing:presets", "Named settings of a dream.", "presets")
_verb("objectives", "listing:objectives", "What an objective's text may say.", "objectives")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the process's arguments by default. Returns the exit code."""
    large_pages()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × is no reason to fail
    try:
        code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except KeyboardInterrupt:
        complain("interrupted, nothing was written")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read us has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except CycloptsError as error:
        complain(_usage(error))
        return MISUSED
    except (Exception, MemoryError) as error:
        if debug:
            traceback.print_exc()
        else:
            complain(explained(error))
        return MISUSED if isinstance(error, SettingsError) else FAILED
    return code if isinstance(code, int) else DONE


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"phosphene: {message}", file=sys.stderr)


def explained(error: BaseException) -> str:
    """An error as one line for a user."""
    # A setting that leads there has its own words for it.
    if out_of_memory(error) and not isinstance(error, SettingsError):
        return "out of memory; a smaller --size needs less, and --device cpu has often more"
    told = " ".join(str(error).split())
    if isinstance(error, PhospheneError):
        return told
    kind = type(error).__name__
    return f"unexpected {kind}: {told or 'no message'}; --debug shows where, and is worth a report"


def _usage(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        told = f"{error.unused_tokens[0]!r} is one argument too many"
    else:
        told = " ".join(str(error).split()).replace("|None", "")
        told = re.sub(r"Literal\[([^\]]*)\]", lambda found: found[1].replace(", ", "|"), told)
    if text := re.search(r"Unknown option: .?(-[A-Za-z_][\w./]*:\w+)", told):
        told = f'an objective that begins with "-" comes last, after --: -- "{text[1]}"'
    verb = " ".join(error.command_chain or ())
    return f"{told.rstrip('.')} (see phosphene {verb + ' ' if verb else ''}--help)"
