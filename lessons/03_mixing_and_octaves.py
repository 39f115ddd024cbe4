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
mixes = ["mixed3b", "8*mixed3b + mixed5a", "5*mixed3b + mixed5a", "mixed5a"]
ph.show(*[ph.dream(sky, net, text) for text in mixes], captions=mixes)

# %% [markdown]
# With equal weights one of two layers may win, not because it matters more: its score rises more
# steeply. How long is the gradient of each? A weight can make up for it.


# %%
def steepness(picture, layer):
    x = picture.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.activations(x, [layer])[layer].square().mean(), x)
    return float(gradient.square().mean().sqrt())


for layer in ["mixed3b", "mixed4c", "mixed5a"]:
    before, after = steepness(sky, layer), steepness(ph.dream(sky, net, layer), layer)
    print(f"{layer}: of the sky {before:.1e}, of its dream {after:.1e}")

# %% [markdown]
# **Think:** a fair weight for the sky need not be fair for its dream. Why?
#
# Weights may be negative, too: *more of this and less of that*. And there are objectives about the
# picture itself: `tv()` is its roughness, so `- 10*tv()` asks for a smoother one.

# %%
mixes = ["mixed4c", "mixed4c - 3*mixed3b", "mixed4c - 10*tv()", "mixed4c - 50*tv()"]
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
# all that is fine in it would be blurred with it. So only what was dreamt is enlarged, and the
# photo comes in anew at each size: its lost detail is put back. Let it snow, and see what is left
# of the snow if we enlarge the whole picture instead.

# %%
chance = torch.Generator().manual_seed(0)
flakes = torch.rand(1, 1, *sky.shape[2:], generator=chance) < 0.03
snow = torch.where(flakes, torch.ones(()), 0.8 * sky)

whole = snow
for number, octave in enumerate(pyramid.octaves):
    whole = resize(snow if number == 0 else whole, octave.size).clamp(0, 1)
    whole = ph.dream(whole, net, "mixed5a", octaves=1)

kept = ph.dream(snow, net, "mixed5a", octaves=4)
ph.show(snow, whole, kept, captions=["snow", "enlarged as a whole", "detail put back"])

# %% [markdown]
# ## How many octaves, how far apart

# %%
ph.grid(
    sky,
    net,
    across={"octaves": [1, 3, 5]},
    down={"octave_scale": [1.3, 1.8]},
    set=["objective=mixed5a"],
)

# %% [markdown]
# More octaves: larger things, and more steps in all. A large factor leaves sizes out: there are
# large things and small ones, and little between.
#
# ## Exercises
#
# **1.** Find a weight *w* with which `w*mixed3b + mixed5a` shows textures and things about equally.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# There is no right answer; the ratio of the two lengths above is a good start.
ratio = steepness(sky, "mixed5a") / steepness(sky, "mixed3b")
fair = f"{ratio:.2g}*mixed3b + mixed5a"
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
# small sizes with `mixed5a` and the last with `mixed3b`.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Large things first, a fine weave on top: two dreams, the second of one octave.
things = ph.dream(sky, net, "mixed5a", octaves=4)
woven = ph.dream(things, net, "mixed3b", octaves=1, steps=5)
ph.show(things, woven, captions=["things", "woven"])
