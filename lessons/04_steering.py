# %% [markdown]
# # 4. Steering: channels, guides, style, hybrids, and the gradient itself
#
# **Goal:** choose what a dream is of, and how it is drawn.

# %%
import phosphene as ph
from phosphene import objectives as obj

net = ph.load_network("dreamnet")
robust = ph.load_network("dreamnet-robust")
sky = ph.draw_sky(160, 214)

# %% [markdown]
# ## Channels
#
# A layer's dream is of whatever the picture suggests. A single channel wants one thing everywhere.
# `mixed4d:0` is channel 0 of `mixed4d`; `mixed4d:0,40` is the mean of two.

# %%
channels = ["mixed4d:24", "mixed4d:100", "mixed4d:24,100"]
ph.show(*[ph.dream(sky, net, text) for text in channels], captions=channels)

# %% [markdown]
# **Think:** the third is of both. Is it a mixture (here the one, there the other), or something in
# between?
#
# ## A guide
#
# Instead of naming channels, show a picture: *more of what the network sees in this one*. At each
# place the dream looks for the place in the guide that is most like it, and grows more like that.
# Here are two guides that networks drew from noise; a photograph works the same, as
# `obj.guide("mixed4c", "flowers.jpg")`.

# %%
blocks = ph.visualize(net, "mixed4c:5", size=128, steps=64)
bee = ph.visualize(robust, "logits:bee", steps=64, learning_rate=0.1)
ph.show(
    blocks,
    ph.dream(sky, net, obj.guide("mixed4c", blocks)),
    bee,
    ph.dream(sky, robust, obj.guide("mixed5a", bee)),
    captions=["a channel", "the sky, guided by it", "a bee", "the sky, guided by it"],
)

# %% [markdown]
# The sky's layout stays: clouds are built of blocks, or turn into flowers, with bees along their
# lower edges.
#
# ## Style
#
# Which channels respond *together* in a layer, regardless of where, is a description of texture:
# its Gram matrix (Gatys, Ecker and Bethge 2015). Style transfer draws a picture with the texture of
# one and the layout of another. The same ascent, with another score.

# %%
painted = ph.style(sky, blocks, net, steps=60)
more = ph.show(ph.style.steps(sky, blocks, net, steps=60, style_weight=10))
ph.show(sky, blocks, painted, more, captions=["layout", "texture", "both", "ten times the texture"])

# %% [markdown]
# ## Hybrids
#
# Objectives add. Two classes at once, from noise: how much of each is in the picture is for the
# weights to say.

# %%
pair = ['logit("king penguin")', "logit(monarch)"]
mixes = [pair[0], f"{pair[0]} + {pair[1]}", pair[1]]
drawn = ph.visualize(robust, mixes, size=128, steps=96)
ph.show(*drawn, captions=["king penguin", "both", "monarch"])

# %% [markdown]
# Not a penguin beside a butterfly, but a penguin in a butterfly's colours: each place is pulled
# both ways at once.
#
# **Think:** does the network see a penguin, a butterfly, or neither in the middle one? Lesson 5
# shows how to ask it.
#
# ## The gradient itself
#
# The other way to steer is to change the gradient before the step. It has a few very large values,
# which take most of the step; and much fine grain.
#
# - **Clipping** cuts what is beyond so many times the usual size: the loud are kept from shouting.
# - **Smoothing** blurs the gradient: no grain.
# - **Laplacian** bands give coarse and fine structure of the gradient equal strength.
# - **Natural** colours: red, green and blue change together, as they do in photographs.

# %%
nothing = {"smooth": 0, "laplacian": 0, "natural": 0}
ways = {
    "nothing": nothing,
    "clip 1": nothing | {"clip": 1.0},
    "smooth 1.5": nothing | {"smooth": 1.5},
    "laplacian 4": nothing | {"laplacian": 4},
    "natural": nothing | {"natural": 0.8},
    "all but clip": {},
}
shown = [ph.dream(sky, net, "mixed4c", **way) for way in ways.values()]
ph.show(*shown[:3], captions=list(ways)[:3])
ph.show(*shown[3:], captions=list(ways)[3:])

# %% [markdown]
# ## Exercises
#
# **1.** Go from one channel to another in four pictures, by weights.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
shares = [0.2, 0.4, 0.6, 0.8]
texts = [f"{1 - t:.1f}*mixed4d:24 + {t}*mixed4d:100" for t in shares]
ph.show(
    *ph.visualize(net, texts, size=128, steps=64),
    captions=[f"{1 - t:.1f} and {t:.1f}" for t in shares],
)

# %% [markdown]
# **2.** What does a guide give at which depth? Guide the sky by `blocks` once more, by `conv2` and
# by `mixed5a`.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# An early layer takes colours and strokes from it, a late one what it takes for things there.
layers = ["conv2", "mixed5a"]
ph.show(*[ph.dream(sky, net, obj.guide(layer, blocks)) for layer in layers], captions=layers)

# %% [markdown]
# **3.** Keep the sky's own colours in a dream, and let the dream only lighten and darken.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
ph.show(ph.dream(sky, net, "mixed4c", keep_colors=True))

# %% [markdown]
# **4.** Dream in the upper half only. (A mask is a picture, white where the dream may be.)

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
mask = sky[:, :1] * 0
mask[:, :, :80] = 1
ph.show(ph.dream(sky, net, "mixed5a", mask=mask))
