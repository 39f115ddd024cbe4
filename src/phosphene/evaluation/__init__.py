"""Score and gradient of an image, whole or in tiles, as memory allows.

| module | what it does |
|---|---|
| `whole` | the whole image at once, for one objective or several |
| `several` | several objectives of one image: one pass forward, one backward for each |
| `leaking` | ReLUs through which a dead unit still gets a gradient |
| `tiles` | exact tiles: score and gradient are those of the whole image |
| `blend` | overlapping tiles, for what has no exact ones |
| `reach` | where to cut an image into exact tiles: how far a position sees |
| `geometry` | where cores and tiles begin and end along each axis |
| `scores` | a score as sums over the positions of maps |
| `rolled` | crops of an image as if it were rolled |
| `cost` | how much memory a gradient takes, measured |
| `plan` | whole or in tiles, and how large they are, for a budget of memory |
| `adaptive` | evaluates at each size as planned, and in smaller tiles where memory runs out |
"""
