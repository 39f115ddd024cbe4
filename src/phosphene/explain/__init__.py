"""What single units see: sheets of a layer's channels, and the card of one unit."""
