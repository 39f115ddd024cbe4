# %% [markdown]
# # 1. Seeing a layer
#
# **Goal:** see what the layers of a network respond to, from edges to whole things.
#
# You need Python and this notebook; no GPU, no internet. Each cell takes a few seconds.

# %%
import torch

import phosphene as ph

net = ph.load_network("dreamnet")  # a small network that comes with phosphene
sky = ph.draw_sky(160, 214)  # clouds that nobody photographed
# sky = ph.load_image("me.jpg", size=214)  # or a photograph of your own
ph.show(sky)

# %% [markdown]
# `dreamnet` was trained to tell 140 kinds of things apart in small photographs: dogs, teapots,
# bridges. It never saw this sky. A picture is a tensor: one picture, three colours, rows, columns,
# each number from 0 (dark) to 1 (bright).

# %%
sky.shape, float(sky.min()), float(sky.max())

# %% [markdown]
# ## What the network is made of
#
# A network is a chain of **layers**. Each takes what the layer before it gives and looks for
# patterns in it. Each of its **channels** looks for one pattern, everywhere in the picture, and
# says how much of it is where: these numbers are its **activations**. A layer further down the
# chain sees through all those before it, so one of its activations depends on a larger part of the
# picture: its **receptive field**.

# %%
print("layer     channels   one activation for   sees")
for name in ["conv1", "conv2", "mixed3b", "mixed4a", "mixed4c", "mixed5a", "mixed5b"]:
    layer = net.layers[name]
    print(
        f"{name:9} {layer.channels:8}   every {int(layer.stride):2} px"
        f"          {layer.receptive_field:3} px"
    )

# %% [markdown]
# Here are six channels of `mixed3b`, those that the sky excites most. White is much. Some mark the
# edges of clouds, some their shaded side.


# %%
def strongest(picture, layer, count=6):
    """The maps of the channels that a picture excites most, each (3, h, w), and their numbers."""
    maps = net.activations(picture, [layer])[layer][0].detach()
    chosen = maps.mean(dim=(1, 2)).topk(count).indices
    scaled = maps[chosen] / maps[chosen].amax(dim=(1, 2), keepdim=True)
    return [one.expand(3, -1, -1) for one in scaled], chosen.tolist()


maps, numbers = strongest(sky, "mixed3b")
ph.show(*maps, captions=[f"channel {n}" for n in numbers])

# %% [markdown]
# **Think:** the map of `mixed3b` has a quarter of the picture's width. Where did the rest go, and
# is it lost?

# %% [markdown]
# ## Ask for more of it
#
# Numbers are hard to read. So we ask the other way round: *how must the picture change for this
# layer to respond more?* The answer is the **gradient**: for every number of the picture, how much
# the layer's response rises if that number rises a little. Follow it by a small step, ask again,
# and so on: that is DeepDream. Watch it.

# %%
dream = ph.show(ph.dream.steps(sky, net, "mixed4c"))

# %% [markdown]
# What `ph.show` went through, `dream` now holds: a picture like any other. The line above says what
# the last step was: in which *octave* (lesson 3), and the *score*, which is what the steps raise:
# here the mean of the squared activations of the layer.
#
# ## From edges to things
#
# The same sky, the same number of steps, four depths.

# %%
depths = ["conv2", "mixed3b", "mixed4b", "mixed5a"]
dreams = [ph.dream(sky, net, layer) for layer in depths]
ph.show(*dreams, captions=depths)

# %% [markdown]
# Early layers draw strokes and weaves, middle ones dots, scales and eyes, late ones heads and
# faces. Nobody told the network to go about it in this order. Telling dogs from teapots is easier
# by way of eyes and handles, and these by way of arcs and edges.
#
# **Think:** every layer drew over the whole sky, also where it was plain blue. Why does plain blue
# not stay as it is?
#
# ## Watch a layer while it dreams
#
# At the left the dream, at the right the channels of `mixed4c` that respond most, dark where they
# do. As forms come up in the picture, spots come up in the maps, in the same places.

# %%
film = ph.show(
    ph.watch(sky, net, "mixed4c", channels=6, octaves=3, every=3, height=220, palette="magma")
)

# %% [markdown]
# ## One channel at a time
#
# A layer is a choir. To hear one voice, we begin with noise instead of a sky, and raise a single
# channel. A **sheet** does so for as many as you like.

# %%
ph.sheet(net, "mixed4c", "0-7", steps=64)

# %% [markdown]
# ## Exercises
#
# Try each before you unfold the answer below it.
#
# **1.** Dream with a layer *between* two of those above, such as `mixed4a`. Does it look like
# something between?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Yes, mostly: what a layer sees is built of what the layer before it sees, so looks change
# gradually.
between = [ph.dream(sky, net, layer) for layer in ["mixed3b", "mixed4a", "mixed4b"]]
ph.show(*between, captions=["mixed3b", "mixed4a", "mixed4b"])

# %% [markdown]
# **2.** The channels that responded most to the sky in `mixed3b`: which are they after the dream?
# Are there more or fewer bright spots?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Mostly others: the dream was of mixed4c, and it draws what *that* layer likes to see.
maps, numbers = strongest(dream, "mixed3b")
ph.show(*maps, captions=[f"channel {n}" for n in numbers])

# %% [markdown]
# **3.** `dreamnet-robust` is the same network, trained also with pictures that were changed to
# deceive it. Dream the same sky through it. What is different?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Fewer, larger, calmer forms. Fine patterns deceive, so it has learnt not to rely on them.
robust = ph.load_network("dreamnet-robust")
ph.show(dream, ph.dream(sky, robust, "mixed4c"), captions=["dreamnet", "dreamnet-robust"])

# %% [markdown]
# **4.** How much did the layer's response rise? Compute the mean of the squared activations of
# `mixed4c` for `sky` and for `dream`.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
with torch.no_grad():
    for name, picture in {"sky": sky, "dream": dream}.items():
        print(name, float(net.activations(picture, ["mixed4c"])["mixed4c"].square().mean()))
