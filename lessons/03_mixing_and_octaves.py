# %% [markdown]
# # 3. Mixing layers, lost detail, and what an octave does
#
# **Goal:** mix what several layers see, and follow a dream from its smallest size to its largest.

# %%
import torch

import phosphene as ph
from phosphene.image import resize

net = ph.load_network("dreamnet")
sky = ph.draw_sky(176, 236)

# %% [markdown]
# ## Layers add, and numbers weigh them
#
# An **objective** says what to see more of. It is a formula: layers and channels with weights. The
# score is their sum, so the gradient is the sum of their gradients, and each pulls its own way.

# %%
mixes = ["mixed3b", "mixed3b + mixed5a", "mixed3b + 8*mixed5a"]
ph.show(*[ph.dream(sky, net, text) for text in mixes], captions=mixes)

# %% [markdown]
# One layer of two may win, because its activations are larger, not because it matters more. How
# large are they? A weight can make up for it.

# %%
with torch.no_grad():
    for name, answer in net.activations(sky, ["mixed3b", "mixed4c", "mixed5a"]).items():
        print(f"{name}: mean of squares {float(answer.square().mean()):.3f}")

# %% [markdown]
# **Think:** a fair weight for the sky need not be fair for its dream. Why?
#
# Weights may be negative, too: *more of this and less of that*. And there are objectives about the
# picture itself: `tv()` is its roughness, so `- 0.05*tv()` asks for a smoother one.

# %%
mixes = ["mixed4c", "mixed4c - 0.3*mixed3b", "mixed4c - 2*tv()"]
ph.show(*[ph.dream(sky, net, text) for text in mixes], captions=mixes)

# %% [markdown]
# ## A picture for each octave
#
# The dream begins with a small picture. What does each size add? `ph.octaves` keeps the picture
# before an octave's steps, after them, and the difference to the photo that is handed on, drawn
# about grey.

# %%
pyramid = ph.show(ph.octaves.steps(sky, net, "mixed5a", octaves=4))

# %% [markdown]
# Read it from left to right. In the smallest octave one activation's receptive field covers nearly
# all of the picture: it decides where the large things are. The last one can only refine them.
#
# **Think:** cover the left columns with your hand. Which of the forms in the last picture could you
# have predicted from the third column?
#
# ## Lost detail
#
# Between two octaves the dream is enlarged, and enlarging blurs. If the *picture* were enlarged,
# the clouds would become blurred with it. So only what was dreamt is enlarged, and the photo comes
# in anew at each size: its lost detail is put back. Here is the dream without that, by enlarging
# the whole picture ourselves.

# %%
carried = sky
sizes = [octave.size for octave in pyramid.octaves]
for number, size in enumerate(sizes):
    carried = resize(sky if number == 0 else carried, size).clamp(0, 1)
    carried = ph.dream(carried, net, "mixed5a", octaves=1)

kept = ph.dream(sky, net, "mixed5a", octaves=4)
ph.show(sky, carried, kept, captions=["the sky", "enlarged as a whole", "detail put back"])

# %% [markdown]
# The clouds of the middle one are soft; what is sharp in it is dreamt. On a photograph with fine
# detail (hair, grass, letters) the difference is larger: try your own.
#
# ## How many octaves, how far apart

# %%
many = {
    "2 octaves": {"octaves": 2},
    "5 octaves": {"octaves": 5},
    "3 octaves, 2 apart": {"octaves": 3, "octave_scale": 2},
}
ph.show(*[ph.dream(sky, net, "mixed5a", **how) for how in many.values()], captions=list(many))

# %% [markdown]
# More octaves: larger things, and more steps in all. A large factor leaves sizes out: there are
# large things and small ones, and little between.
#
# ## Exercises
#
# **1.** Find a weight *w* with which `mixed3b + w*mixed5a` shows textures and things about equally.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# There is no right answer; about the ratio of the two means of squares above is a good start.
answers = net.activations(sky, ["mixed3b", "mixed5a"])
ratio = answers["mixed3b"].square().mean() / answers["mixed5a"].square().mean()
fair = f"mixed3b + {float(ratio):.2g}*mixed5a"
ph.show(ph.dream(sky, net, fair), captions=[fair])

# %% [markdown]
# **2.** How large is a thing? In which octave of `pyramid` do the largest forms appear, and how
# many px of the final picture is `mixed5a`'s receptive field of that octave?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Each octave's px are so many times larger in the final picture.
field = net.layers["mixed5a"].receptive_field
for octave in pyramid.octaves:
    times = pyramid.octaves[-1].size[0] / octave.size[0]
    print(f"octave {octave.number}: {field} px there are {field * times:.0f} px here")

# %% [markdown]
# **3.** An objective that changes with the octave is not built in. Make one by hand: dream the
# small sizes with `mixed5a` and the last with `mixed3a`.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Large things first, a fine weave on top: two dreams, the second of one octave.
things = ph.dream(sky, net, "mixed5a", octaves=4)
ph.show(things, ph.dream(things, net, "mixed3a", octaves=1, steps=6), captions=["things", "woven"])
