"""Drawn products, and defects planted into drawings and photographs; NumPy and Pillow alone."""
