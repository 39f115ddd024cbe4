# %% [markdown]
# # 5. Why dumbbells grow arms
#
# **Goal:** find out what a network takes a thing for, and why that is not always the thing.
#
# In 2015 the first article on these dreams asked a network to draw dumbbells from noise. They came
# with arms. Nobody had told the network where a dumbbell ends and the arm that lifts it begins.

# %%
import torch
import torch.nn.functional as F

import phosphene as ph
from phosphene.image import resize

net = ph.load_network("dreamnet-robust")
print(len(net.classes), "classes, such as", ", ".join(net.classes[:6]))

# %% [markdown]
# ## Draw a class from noise
#
# A **class score** (a *logit*) is the network's last answer: one number for each class, the higher,
# the surer. Begin with noise and raise that of one class. The seed decides which noise; with four
# seeds one sees what always comes, and what came by chance.

# %%
more = {"steps": 96, "learning_rate": 0.1}
dumbbells = torch.cat(
    [ph.visualize(net, "logits:dumbbell", seed=seed, **more) for seed in range(4)]
)
ph.show(*dumbbells, captions=[f"seed {seed}" for seed in range(4)])

# %% [markdown]
# Black discs and grips, from several sides at once. And around them skin: knuckles, forearms,
# something like a shoulder.
#
# **Think:** which parts of these pictures would you have drawn, if you were asked for a dumbbell?
#
# ## What does the network see in its own drawings?
#
# Show the pictures to the network and ask for all class scores. `softmax` makes shares of them that
# add to 1. We show them at 64 px, the size of the photographs that the network knows.


# %%
def top_classes(pictures, count=4):
    """The likeliest classes of each picture, with their shares."""
    with torch.no_grad():
        scores = net.activations(resize(pictures, (64, 64)).clamp(0, 1), ["logits"])["logits"]
    shares, numbers = scores.softmax(1).topk(count)
    return [
        [(net.classes[n], s) for n, s in zip(row, some, strict=True)]
        for row, some in zip(numbers.tolist(), shares.tolist(), strict=True)
    ]


for row in top_classes(dumbbells):
    print(", ".join(f"{name} {100 * share:.1f} %" for name, share in row))

# %% [markdown]
# It is sure of itself: no wonder, it drew them. What comes second, far behind, tells what a
# dumbbell is like for this network: dark, of metal, in links; and a little soft and brown, like a
# teddy. No class comes up for the skin, since none of the 140 is a hand or an arm: the network has
# no word for it, and had to put it somewhere.
#
# ## Where is the dumbbell?
#
# Which parts of a picture make the score? The gradient says how the score changes with each number;
# times how far that number is from grey, it says about how much the score would lose if the place
# were painted grey. Blurred a little, it is a map.


# %%
def parts(picture, name):
    """Where a picture raises the score of a class: (1, 1, H, W), in units of the score."""
    x = picture.clone().requires_grad_()
    score = net.activations(x, ["logits"])["logits"][0, net.classes.index(name)]
    (gradient,) = torch.autograd.grad(score, x)
    map_ = ((picture - 0.5) * gradient).sum(1, keepdim=True)
    for _ in range(3):  # three box blurs are nearly a Gaussian one
        map_ = F.avg_pool2d(map_, 9, stride=1, padding=4, count_include_pad=False)
    return map_


def lit(picture, map_):
    """The picture, dark where the map is low."""
    return picture * (map_ / map_.quantile(0.95)).clamp(0.15, 1)


one = dumbbells[:1]
ph.show(one, lit(one, parts(one, "dumbbell")), captions=["drawn", "what raises dumbbell"])

# %% [markdown]
# A gradient is only a slope. Does it tell the truth? Paint the part of the picture grey that the
# map says is worth most, then as much elsewhere, and look at the score.


# %%
def score_of(picture, name):
    with torch.no_grad():
        scores = net.activations(picture, ["logits"])["logits"]
    return float(scores[0, net.classes.index(name)])


map_ = parts(one, "dumbbell")
best = map_ > map_.quantile(0.85)
grey = torch.full_like(one, 0.5)
elsewhere = [best.roll((down, 48), dims=(2, 3)) for down in (0, 24, 48, 72)]  # the same shape
painted = [one, one.where(~best, grey), one.where(~elsewhere[2], grey)]
by_chance = sum(score_of(one.where(~mask, grey), "dumbbell") for mask in elsewhere) / 4
says = [score_of(one, "dumbbell"), score_of(painted[1], "dumbbell"), by_chance]
words = ["score", "grey there:", "grey elsewhere:"]
ph.show(*painted, captions=[f"{word} {score:.1f}" for word, score in zip(words, says, strict=True)])

# %% [markdown]
# ## All of it on a page
#
# `ph.story` does the same for any class: drawings, what else is seen in them, and, outlined, what
# raises the class and what raises the one that comes second.

# %%
story = ph.show(ph.story.steps(net, "dumbbell", seeds=2))

# %% [markdown]
# ## So, why?
#
# The network saw 500 photographs with the label *dumbbell*. In many of them somebody lifts it. What
# always comes together is, for a network, one thing: an arm predicts the label, so an arm is part
# of it. That is no fault of the arithmetic. It is in the photographs.
#
# **Think:**
#
# - Photographs of which other classes nearly always show something else as well?
# - A network that tells healthy skin from sick skin was trained with photographs in which a ruler
#   lies beside what the doctors found suspicious. What may it have learnt?
# - You have seen four drawings of one network. What can you say of networks in general, and what
#   not?
#
# ## Exercises
#
# **1.** Draw a class of your own choice: `net.classes` lists them. Look for what does not belong to
# it.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# A bee has its flower, a snail the ground, a gondola water, poles and a quay.
names = ["bee", "snail", "gondola"]
ph.show(*ph.visualize(net, [f"logits:{name}" for name in names], **more), captions=names)

# %% [markdown]
# **2.** Ask the other network, `dreamnet`, what it sees in these drawings. Why is this the better
# test?

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# A picture that was made to please one network may please it by tricks that fool nobody else. (The
# two are relatives, so even this is a weak test.)
other = ph.load_network("dreamnet")
with torch.no_grad():
    scores = other.activations(resize(dumbbells, (64, 64)).clamp(0, 1), ["logits"])["logits"]
for share, number in zip(*scores.softmax(1).max(1), strict=True):
    print(other.classes[number], f"{100 * float(share):.0f} %")

# %% [markdown]
# **3.** Can you draw a dumbbell *without* an arm? Objectives add: find what to subtract.

# %% tags=["hide-cell"] jupyter={"source_hidden": true, "outputs_hidden": true}
# There is no class "arm" to subtract, which is the point: the network has no word for it. Classes
# in which people are seen come nearest, such as kimono and oboe.
texts = ["logit(dumbbell)", "logit(dumbbell) - 0.5*logit(kimono) - 0.5*logit(oboe)"]
ph.show(*ph.visualize(net, texts, **more), captions=["dumbbell", "less of people"])
