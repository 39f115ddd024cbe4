"""How the bundled networks were made: data, training, evaluation, export. See docs/dreamnet.md."""
