# %% [markdown]
# # 6. From noise into a zoom
#
# **Goal:** make a film: dream, go a little closer, dream on, without end.

# %%
import phosphene as ph
from phosphene.image import resize, start_picture

net = ph.load_network("dreamnet")

# %% [markdown]
# ## Something from nothing
#
# Noise shows nothing, and yet every layer finds a little of what it looks for. Make that little
# more, and a little more is found. After some rounds there is a picture. We begin with coarse
# noise, a few coloured spots: from fine noise, grain as large as a px, only small things grow.

# %%
spots = resize(start_picture("noise", (24, 32), seed=2), (144, 192)).clamp(0, 1)
rounds = [spots]
for _ in range(3):
    rounds.append(ph.dream(rounds[-1], net, "mixed5a", octaves=4))
ph.show(*rounds, captions=["spots", "once", "twice", "three times"])

# %% [markdown]
# **Think:** with another seed the picture is another, and yet of the same kind. What of it comes
# from the noise, and what from the network?
#
# ## One step closer
#
# A zoom is this loop with one more line: before each round, cut off a rim and enlarge the rest.
# What was a dot becomes an eye, and in the eye there is room for dots.


# %%
def closer(picture, by=1.06):
    """The middle of a picture, enlarged to its size."""
    height, width = picture.shape[-2:]
    h, w = round(height / by), round(width / by)
    top, left = (height - h) // 2, (width - w) // 2
    return resize(picture[:, :, top : top + h, left : left + w], (height, width)).clamp(0, 1)


picture = rounds[2]
frames = []
for _ in range(24):
    picture = ph.dream(closer(picture), net, "mixed5a", octaves=2, steps=3)
    frames.append(picture)
ph.show(frames)

# %% [markdown]
# A list of pictures is shown as a film. `ph.save_image(frames[-1], "last.png")` keeps one of them.
#
# **Think:** watch the colours. Where do they go, after a minute of film? Nothing pulls them back.
#
# ## The same, with care
#
# `ph.zoom` is that loop with what one learns from long films: it enlarges by parts of a px, so that
# nothing jumps; holds colours near those of the beginning; adds a breath of noise, so that new
# forms have something to grow from; and goes from one layer to the next.

# %%
journey = ph.zoom(
    rounds[2], net, ["mixed5a", "mixed4b", "mixed5b"], frames=12, fade=6, fps=12, zoom="1.045/f"
)
film = ph.show(journey)

# %% [markdown]
# Heads become scales and eyes, and these become whole things again. The picture is the same all the
# time; what is asked for changes.
#
# ## Keep it
#
# A film's file needs the extra `film`: `pip install "phosphene[film]"`. Then
#
# ```python
# ph.write_film("journey.mp4", film)
# ```
#
# writes what you have just seen. A long one is better made on the command line, which goes on where
# it was when the machine was switched off:
#
# ```
# phosphene zoom --start noise --layers mixed3b,mixed4c,mixed5a --seconds 10 -o journey.mp4
# ```
#
# ## Exercises
#
# **1.** Turn as you zoom: `turn="2/f"`, in degrees a frame.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
how = {"frames": 12, "fps": 12, "zoom": "1.04/f"}
turning = ph.show(ph.zoom(rounds[2], net, "mixed5a", turn="2/f", **how))

# %% [markdown]
# **2.** Let the end of the film go over into its beginning: `loop=True`. How can that be, if each
# frame is closer than the one before?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Each frame of the end is mixed with the first one as it looked before the zoom came to it:
# smaller, with something around it. Then the dream mends what was mixed.
endless = ph.show(ph.zoom(rounds[2], net, "mixed5a", loop=True, **how))

# %% [markdown]
# **3.** How far has one come? After 36 frames at 1.045 each, how many px wide was the whole last
# frame in the first one?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
print(f"{192 / 1.045**36:.0f} px of 192: the rest has been dreamt on the way")
