"""What single units see: sheets of a layer's channels, and the card of one unit.

Beside them, on pages of the same make, the curves of a film's keyframes (`key_page`).
"""
