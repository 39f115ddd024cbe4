"""The command line: `phosphene VERB`.

Exit codes: 0 done, 1 it could not be done, 2 the command or a setting is wrong, 3 a replay came out
different, 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP. Results go to stdout,
everything else to stderr. Nothing here imports torch before a verb needs it, so that help and
mistakes are answered at once.
"""

from __future__ import annotations

import io
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cyclopts import App, CycloptsError, UnusedCliTokensError

from phosphene import __version__
from phosphene.cli.exits import (
    DONE,
    FAILED,
    MISUSED,
    complain,
    explained,
    forget_stdout,
    forgiving_streams,
    interrupted,
    plain,
)
from phosphene.cli.process import importing_without_collections
from phosphene.cli.signals import ending_signals
from phosphene.errors import PluginWarning, SettingsError
from phosphene.image.files import refuse_address
from phosphene.plugins.available import load_available
from phosphene.recipes.base import Recipe, is_recipe, recipe_named, recipe_names, recipe_summary
from phosphene.runtime.allocator import large_pages
from phosphene.runtime.threads import wait_passively

EPILOGUE = """Examples:

  phosphene dream sky.jpg                      gives sky-dream.png, beside it
  phosphene dream sky.jpg -o out.webp --objective "2*mixed4b + mixed4d:42"
  phosphene dream sky.jpg --preset temples --strength 1.5
  phosphene dream sky.jpg --guide flowers.jpg --keep-colors
  phosphene dream --start noise --size 512     without a photo
  phosphene visualize mixed4c:12               what a unit responds to
  phosphene visualize logits:dumbbell --network dreamnet-robust --batch 4
  phosphene caricature lion.jpg                what a layer sees in it
  phosphene invert lion.jpg --layer mixed4d    what it still knows of it
  phosphene accentuate lion.jpg mixed4c:12     what excites the unit there
  phosphene style lion.jpg flowers.jpg         in the other's textures
  phosphene sheet dreamnet mixed4c             all channels of a layer, a page
  phosphene unit dreamnet mixed4c:42 --pictures photos   from four sides
  phosphene zoom sky.jpg --loop                a film: ever closer, dreamt on
  phosphene film walk.mp4 --size 640           your own film, dreaming steadily
  phosphene frames walk.mp4 -o pictures        a film as pictures, and back
  phosphene layers dreamnet                    what can be dreamt
  phosphene objectives                         how to say it
  phosphene transforms                         what --transforms takes
  phosphene networks --all                     with which networks
  phosphene presets                            looks, and who published what
  phosphene lessons                            notebooks: how all this works
  phosphene replay sky-dream.png               does it come out the same here?

Any verb takes --help, --plugin FILE.py, code of your own, and --debug, for the
traceback of an error.
"""

PLUGIN = "--plugin"
PREFIX = "recipe-"  # of a recipe's verb, so that it is no other name of its module

app = App(
    name="phosphene",
    help="See what a neural network sees.",
    help_epilogue=EPILOGUE,
    help_format="plaintext",
    version=f"phosphene {__version__}",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # it would exit without a word
)


def _command(function: str, name: str, text: str, examples: Sequence[str]) -> None:
    # By name: what a verb needs is imported when it is called.
    lines = "\n".join(f"  phosphene {example}" for example in examples)
    plural = "s" if len(examples) > 1 else ""
    epilogue = f"Example{plural}:\n\n{lines}\n" if lines else None
    app.command(f"phosphene.cli.{function}", name=name, help=text, help_epilogue=epilogue)


# Verbs that make nothing of a recipe of their own.
_command(
    "replay:verb",
    "replay",
    "Make again what a picture's recipe says, and say whether it is the same.",
    (
        "replay sky-dream.png",
        "replay sky-dream.png --input photo=pictures/sky.jpg -o again.png",
    ),
)
_command(
    "request:verb",
    "run",
    "Run a saved request.",
    ("dream sky.jpg --save-request job.json --dry-run", "run job.json"),
)
_command(
    "frames:verb",
    "frames",
    "A film as pictures, or pictures as a film.",
    ("frames walk.mp4 -o pictures", "frames pictures -o walk.mp4 --fps 24"),
)
_command(
    "lessons:verb",
    "lessons",
    "Write the lessons into a folder: notebooks that show how all this works.",
    ("lessons", "lessons my-lessons"),
)
_command(
    "listing:layers",
    "layers",
    "The layers of a network: what can be dreamt.",
    ("layers", "layers vgg16 --depth 1 --size 427x640"),
)
_command(
    "listing:networks",
    "networks",
    "The networks that have a name, and whether their weights are here.",
    ("networks --all",),
)
_command(
    "listing:presets",
    "presets",
    "Named settings of a dream: looks, and published algorithms.",
    ("presets", "presets --sheet lake.jpg"),
)
_command("listing:objectives", "objectives", "What an objective's text may say.", ("objectives",))
_command(
    "listing:transforms",
    "transforms",
    "What --transforms and --gradient-transforms may say.",
    ("transforms",),
)
_command(
    "listing:plugins",
    "plugins",
    "Code of your own that is loaded, and what it brings.",
    ("plugins --plugin glow.py",),
)
_command(
    "completion:verb",
    "--install-completion",
    "Have the shell complete verbs and flags.",
    ("--install-completion", "--install-completion --shell zsh"),
)

_HELP = ("--help", "-h")
_OWN = frozenset(app)  # verbs that are no recipe's, and flags of the program
_verbs: dict[str, str] = {}  # recipe -> the help that its verb has


def _plugins_taken_out(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tokens without `--plugin X`, wherever it stands before --, and each X.

    >>> _plugins_taken_out(["--plugin", "glow.py", "glow", "sky.jpg", "--plugin=more.py"])
    (['glow', 'sky.jpg'], ['glow.py', 'more.py'])
    """
    kept: list[str] = []
    sources: list[str] = []
    left = iter(tokens)
    for token in left:
        if token == "--":
            return [*kept, token, *left], sources
        flag, equals, value = token.partition("=")
        if flag != PLUGIN:
            kept.append(token)
            continue
        source = value if equals else next(left, "")
        if not source or source.startswith("-"):
            raise SettingsError(f"{PLUGIN} needs a FILE.py or a package.module")
        sources.append(source)
    return kept, sources


def _refuse_addresses(tokens: Sequence[str]) -> None:
    """ImageError for a URL where a path is meant, before it is read as one and loses a slash."""
    for token in tokens:
        flag, equals, value = token.partition("=")
        text = value if equals and flag.startswith("-") else token
        # `file:/weights.pth@NETWORK` names a network; a picture called so is refused when read.
        if not re.match(r"file:(/(?!/)|.*@)", text):
            refuse_address(text)


def _load_plugins(sources: Sequence[str], tokens: Sequence[str]) -> None:
    """Load those that are named; and all that can be had where a verb may be theirs, or in help."""
    if sources:
        from phosphene.plugins.loading import load_plugins

        load_plugins(sources, way=PLUGIN)
    if not tokens or tokens[0] in _HELP or (tokens[0] not in _OWN and not is_recipe(tokens[0])):
        load_available()


def _add_recipes(tokens: Sequence[str]) -> None:
    """A verb for each recipe that is known by now; only the one that is called is imported."""
    names = recipe_names()
    for name in [name for name in _verbs if name not in names]:  # forgotten since
        del app[name], _verbs[name]
    for name in names:
        if name in _OWN:
            text = f"the recipe {name!r} is no verb, since there is another one of that name"
            warnings.warn(text, PluginWarning, stacklevel=2)
            continue
        text, examples = recipe_summary(name), ()
        if name in tokens[:1]:
            recipe = recipe_named(name)
            text, examples = f"{recipe.summary}\n\n{recipe.about}".strip(), recipe.examples
        if name in _verbs and (name in tokens[:1] or _verbs[name] != text):
            del app[name]
        elif name in _verbs:
            continue
        _command(f"verbs:{PREFIX}{name}", name, text, examples)
        _verbs[name] = text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the process's arguments by default. Returns the exit code."""
    large_pages()
    wait_passively()
    with forgiving_streams(), importing_without_collections():
        return _main(list(sys.argv[1:] if arguments is None else arguments))


def _main(tokens: list[str]) -> int:
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × is no reason to fail
    try:
        with ending_signals(), _telling_failures():
            tokens, sources = _plugins_taken_out(tokens)
            _refuse_addresses(tokens)
            _load_plugins(sources, tokens)
            _add_recipes(tokens)
            code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
    except KeyboardInterrupt as error:
        complain("interrupted")
        return interrupted(error)
    except BrokenPipeError:  # whoever read us has seen enough
        forget_stdout()
        return FAILED
    except CycloptsError as error:
        complain(_usage(error))
        return MISUSED
    except (Exception, MemoryError) as error:
        if debug:
            sys.stderr.write(plain(traceback.format_exc()))
        else:
            complain(explained(error))
        return MISUSED if isinstance(error, SettingsError) else FAILED
    return code if isinstance(code, int) else DONE


@contextmanager
def _telling_failures() -> Iterator[None]:
    """An installed plugin that failed is told of in a line, also where no job hears warnings."""
    plainly = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, PluginWarning):
            complain(f"note: {message}")
        else:
            plainly(message, category, *where, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _subject_instead(flag: str, recipe: Recipe) -> str | None:
    """What a recipe is about, for who named it by the flag of another recipe."""
    kinds = ("objective", "layer", "unit", "channel")
    subject = recipe.subject
    if flag.removesuffix("s") not in kinds or subject is None or subject.name == flag:
        return None
    if not subject.positional:
        return f"{recipe.name} has no --{flag}; what it is about is said by --{subject.name}"
    return (
        f"{recipe.name} has no --{flag}; its {subject.name} has no flag: phosphene "
        f"{recipe.examples[0] if recipe.examples else recipe.name}"
    )


def _usage(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        text = f"{error.unused_tokens[0]!r} is one argument too many"
    else:
        text = " ".join(str(error).split()).replace("|None", "")
        text = re.sub(r"Literal\[([^\]]*)\]", lambda found: found[1].replace(", ", "|"), text)
    if found := re.search(r"Unknown option: .?(-[A-Za-z_][\w./]*:\w+)", text):
        text = f'an objective that begins with "-" comes last, after --: -- "{found[1]}"'
    verb = " ".join(error.command_chain or ())
    if (found := re.search(r"Unknown option: .?--(\w+)", text)) and is_recipe(verb):
        text = _subject_instead(found[1], recipe_named(verb)) or text
    return f"{text.rstrip('.')} (see phosphene {verb + ' ' if verb else ''}--help)"
