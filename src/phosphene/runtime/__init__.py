"""What runs a network's computation fast, and keeps it within memory.

Knows modules and tensors; no `Network`, and no objective. Nothing is imported here: the command
line reads amounts of memory before PyTorch is there.

| module | what it does |
|---|---|
| `options` | how a network is run, passed down from an evaluator to every operation |
| `graph` | a network's graph: traced, cut after the layers asked for, in stages, BatchNorm folded |
| `geometry` | strides and receptive fields of its layers |
| `lowering` | a cut graph as a program |
| `program` | runs a program: its answer, and its gradient written out |
| `operations` | what a program is made of |
| `convolutions` | convolutions as a library of the device does them: oneDNN or cuDNN |
| `bands` | a program's first layers over a part of a large picture at a time |
| `pooling` | max-pooling and its gradient: by Numba, in few bytes, or PyTorch's |
| `kernels` | max-pooling by Numba |
| `fused` | preprocessing and blurs on CUDA, in a kernel each |
| `triton_kernels` | these kernels, by Triton |
| `capture` | CUDA graphs: what is computed again and again on a card, recorded and replayed |
| `autograd` | convolution, ReLU and max-pooling that save less than PyTorch's |
| `allocator` | what the process keeps of the memory that it has freed |
| `memory` | how much memory there is |
| `device` | what is not alike on all devices: rounding, layouts, what is missing |
"""
