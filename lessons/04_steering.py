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
# The guide is a butterfly that the network itself drew from noise.

# %%
butterfly = ph.visualize(robust, "logits:monarch", size=128, steps=96)
guide = obj.guide("mixed4c", butterfly)
ph.show(
    butterfly,
    ph.dream(sky, robust, "mixed4c"),
    ph.dream(sky, robust, guide),
    captions=["the guide", "without it", "with it"],
)

# %% [markdown]
# A guide that is a photograph works the same: `obj.guide("mixed4c", "flowers.jpg")`.
#
# ## Style
#
# Which channels respond *together* in a layer, regardless of where, is a description of texture:
# its Gram matrix (Gatys, Ecker and Bethge 2015). Style transfer draws a picture with the texture of
# one and the layout of another. The same ascent, with another score.

# %%
woven = ph.dream(ph.draw_sky(160, 214, seed=3), robust, "mixed4b", steps=20)
painted = ph.show(ph.style.steps(sky, woven, net, steps=80))
ph.show(sky, woven, painted, captions=["layout", "texture", "both"])

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
texts = [f"{1 - t:.2f}*mixed4d:24 + {t:.2f}*mixed4d:100" for t in (0.2, 0.4, 0.6, 0.8)]
ph.show(*ph.visualize(net, texts, size=96, steps=96), captions=texts)

# %% [markdown]
# **2.** Guide the sky by *itself, upside down*. What do you expect, and what comes?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Little: whatever is in the one sky is in the other, so each place finds its like there at once,
# and is asked for more of what it is already.
upside_down = obj.guide("mixed4c", sky.flip(2))
ph.show(sky, ph.dream(sky, robust, upside_down), captions=["the sky", "guided by itself"])

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
