"""Draw a class from noise, with what else the network sees in its drawings, and where.

How it is drawn is in `phosphene.explain.story`.
"""

from __future__ import annotations

from pydantic import Field

from phosphene.recipes.base import Recipe, Subject, register
from phosphene.recipes.function import RecipeFunction
from phosphene.recipes.sheet import PAGE, CellSettings


class StorySettings(CellSettings):
    """Every setting of a class's story: of its drawings those of `visualize`, and of the rest."""

    seeds: int = Field(4, ge=1, le=12, description="Drawings, each from a seed of its own.")
    shown: int = Field(5, ge=2, le=20, description="Classes that are named under each drawing.")
    outlined: float = Field(
        0.15, gt=0, lt=1, description="Share of a drawing that is outlined, at most."
    )


STORY = register(
    Recipe(
        name="story",
        settings=StorySettings,
        resampled=True,
        steps="phosphene.explain.story:story_steps",
        result_type="phosphene.explain.story:Story",
        step_type="phosphene.explain.story:StoryStep",
        result=lambda step: step.story,
        output="page",
        subject=Subject(
            "class",
            'The name of a class, such as dumbbell or "king penguin", or its number.',
            positional=True,
        ),
        caches=True,
        output_name="{name}-{unit}",
        output_shown="story-CLASS.png",
        output_help=PAGE,
        noun="page",
        about="Under each drawing: the classes that the network sees in it. Below that, outlined, "
        "what raises the class's score, and what raises that of the most probable other one.",
        examples=(
            "story dumbbell",
            'story "king penguin" --network dreamnet-robust --seeds 3 -o penguin.svg',
        ),
    )
)

story = RecipeFunction(
    STORY,
    """
    Draw a class from noise, with what else the network sees in its drawings: a `Story`.

    What is outlined raises a score S: the drawing's contrast to mid-grey times dS/dx, where S is
    the class's logit (Simonyan, Vedaldi and Zisserman 2013, "Deep Inside Convolutional Networks",
    for the gradient; Shrikumar et al. 2016 for its product with the picture), summed over colours,
    blurred by 5 % of the picture's side; of that the highest `outlined` share, where it is above 0.
    To first order it says what the score would lose were the place grey. What it does lose when
    all of it is, `Push.covered` tells, and `Push.by_chance` what as much grey elsewhere costs.

    Args:
        network: whose class it is, or its name.
        class_name: the class by its name, "dumbbell", or by its number.
        keep: whether drawings are stored in the cache folder, and taken from there.
        **settings: those of `StorySettings`, by name.

    Returns:
        A `Story`; `page(story)` is it as a picture, and `story.steps(…)` gives a `StoryStep` for
        each step; drawings that are done when you stop are stored.

    Raises:
        ObjectiveError: for a class that is not there, with the closest ones; for a name where the
            network has none.
        NetworkError: for a network without class scores; and what `visualize` raises.

    >>> story = phosphene.story(net, "dumbbell", seeds=1, size=64, steps=2)
    >>> phosphene.page(story).save("dumbbell.png")
    """,
)
