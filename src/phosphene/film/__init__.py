"""Films: their frames, in and out, and what carries a dream from one frame to the next.

    keys         settings that change while a film runs
    expressions  values such as `1.6 + .2*sin(2*pi*t)`: parsed, never evaluated by Python
    times        times as they are written: `10s`, `250f`, `50%`, `1:02.5`, `end`

These three import neither torch nor numpy.
"""
