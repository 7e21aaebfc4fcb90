"""Exact nearest neighbours, ties by index: brute force, and in front of it a cascade of screens.

exact.py   what a similarity is, to the last bit; all of brute force but its loop
search.py  the loop: `key_tiles` is brute force, and right alone; `_cascade` puts screens before it
gallery.py a gallery that stays open: prepared once for many searches
screen.py  a screen: low-precision scores with a proven bound, which only rule items out

Without screens (`precisions` giving none) every answer is the same, and takes longer.
"""
