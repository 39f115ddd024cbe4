# %% [markdown]
# # 2. The algorithm, part by part, and written from scratch
#
# **Goal:** understand every line of DeepDream, by writing it in 25 lines and getting phosphene's
# own picture out of them, to the last digit.

# %%
import torch
import torch.nn.functional as F

import phosphene as ph

net = ph.load_network("dreamnet")
sky = ph.draw_sky(160, 214)

# %% [markdown]
# ## Four panels
#
# Take everything away from DeepDream that can be taken away, and put it back, one part at a time.

# %%
panels = ph.show(ph.panels.steps(sky, net, "mixed5a"))

# %% [markdown]
# - **Gradient ascent.** Find how the layer's response changes with each number of the picture (the
#   *gradient*), and take a small step that way. Alone it draws everywhere at one scale.
# - **Octaves.** Dream a small version of the picture first, enlarge what came of it, dream on. What
#   was small in the first is large in the last: things of every size. Two sizes lie a factor 1.4
#   apart, like notes of a scale, whence the name.
# - **Jitter.** Before each step shift the picture a few px by chance, and shift the gradient back.
#   The network looks at the picture through a grid (one activation every 16 px here); with jitter
#   nothing depends on where the grid happens to lie.
#
# **Think:** look at the second panel from near. Where do you see the grid? Is it gone in the
# fourth?
#
# ## The gradient, once
#
# PyTorch finds gradients by itself. A network is a module; a *hook* tells us what a layer inside of
# it gives. We compute in float64, with 16 digits, so that two programs that do the same agree.

# %%
module = ph.load_network("dreamnet").module.double()
inside = {}
module.mixed5a.register_forward_hook(lambda module, inputs, output: inside.update(answer=output))


def response(picture):
    """How strongly the layer responds: the mean of its squared activations."""
    module((picture - 0.5) / 0.25)  # dreamnet was trained on pictures in these units
    return inside["answer"].square().mean()


x = sky.double().requires_grad_()
score = response(x)
(gradient,) = torch.autograd.grad(score, x)
print(f"score {score.item():.4f}; the largest slope is {float(gradient.abs().max()):.1e}")
ph.show(
    sky,
    (0.5 + 0.12 * gradient / gradient.std()).clamp(0, 1).float(),
    captions=["the sky", "its gradient, about grey"],
)

# %% [markdown]
# The gradient is tiny, and looks like noise with a will: brighter here, darker there. Its size says
# little, so we divide by its root mean square and choose the size of our steps ourselves.
#
# **Think:** what would happen if we did not divide, and used one step size for all layers?
#
# ## All of it


# %%
def resize(picture, size):
    return F.interpolate(picture, size, mode="bicubic", align_corners=False, antialias=True)


def dream(photo, octaves=4, scale=1.4, steps=10, step_size=0.012, jitter=32, seed=0):
    chance = torch.Generator().manual_seed(seed)
    height, width = photo.shape[-2:]
    sizes = [(round(height / scale**k), round(width / scale**k)) for k in range(octaves)][::-1]
    x = before = resize(photo, sizes[0]).clamp(0, 1)
    for size in sizes:
        base = resize(photo, size).clamp(0, 1) if size != (height, width) else photo
        x = resize(x - before, size) + base  # what was dreamt, enlarged, on the photo at this size
        before = base
        for _ in range(steps):
            down, right = (
                int(torch.randint(-jitter, jitter + 1, (), generator=chance)) for _ in range(2)
            )
            rolled = x.roll((down, right), dims=(2, 3)).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(response(rolled), rolled)
            gradient = gradient.roll((-down, -right), dims=(2, 3))
            x = (x + step_size * gradient / gradient.square().mean().sqrt()).clamp(0, 1)
    return x


ours = dream(sky.double())
plain = {"smooth": 0, "laplacian": 0, "natural": 0}  # refinements of the gradient: lesson 4
theirs = ph.dream(sky, net, "mixed5a", octaves=4, precision="fp64", **plain)
ph.show(ours.float(), theirs, captions=["25 lines", "phosphene"])

# %% [markdown]
# They look alike. Are they?

# %%
last = list(ph.dream.steps(sky, net, "mixed5a", octaves=4, precision="fp64", **plain))[-1]
difference = float((ours - last.image).abs().max())
print(f"largest difference of two numbers: {difference:.1e}")
assert difference < 1e-6

# %% [markdown]
# So that is all there is to it. What phosphene adds is speed (it runs the network no further than
# the layer, in float32), pictures larger than memory, and some refinements of the gradient.
#
# The line to dwell on is `x = resize(x - before, size) + base`. It enlarges only *what was dreamt*,
# the difference to the photo; the photo itself comes in anew at each size, as sharp as it is.
#
# ## Exercises
#
# **1.** Take the clamp to [0, 1] away from the last line. What happens to the numbers, and to the
# picture?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Colours leave the range that a screen can show; saved, they are cut off anyway, but the network
# was looking at values that nobody will see. phosphene has it as a setting: clamp="off".
free = ph.dream.steps(sky, net, "mixed5a", octaves=4, clamp="off", steps=30, **plain)
free = list(free)[-1]
print(float(free.image.min()), float(free.image.max()))
ph.show(free)

# %% [markdown]
# **2.** Why does the gradient have to be rolled back? Leave that line out in your mind, then in a
# copy of the function.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}


# The gradient then belongs to another place than where it is added, by up to 32 px: each step
# undoes what the steps before have built, and the score hardly rises.
def astray(photo, steps=20, step_size=0.012, jitter=32, back=True):
    chance, x, scores = torch.Generator().manual_seed(0), photo, []
    for _ in range(steps):
        d, r = (int(torch.randint(-jitter, jitter + 1, (), generator=chance)) for _ in range(2))
        rolled = x.roll((d, r), dims=(2, 3)).detach().requires_grad_()
        score = response(rolled)
        scores.append(score.item())
        (g,) = torch.autograd.grad(score, rolled)
        g = g.roll((-d, -r), dims=(2, 3)) if back else g
        x = (x + step_size * g / g.square().mean().sqrt()).clamp(0, 1)
    return scores


print("rolled back:", [round(s, 2) for s in astray(sky.double())[::5]])
print("not rolled: ", [round(s, 2) for s in astray(sky.double(), back=False)[::5]])

# %% [markdown]
# **3.** Descend instead: subtract the gradient. What does a picture look like that a layer responds
# to as little as possible?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# Spots, streaks, something like flowers: anything but heads. The steps go where this layer responds
# least, and what else they do there is nobody's wish.
ph.show(sky, ph.dream(sky, net, "-mixed5a", octaves=4, **plain), captions=["the sky", "less of it"])
