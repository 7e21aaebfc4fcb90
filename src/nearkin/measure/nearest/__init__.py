"""Exact nearest neighbours, ties by index: brute force, and in front of it a cascade of screens.

exact.py     what a similarity is, to the last bit; all of brute force but its loop
brute.py     a search; `key_tiles` is brute force, and right alone
search.py    neighbours and ranks, from whichever of the others serves
cascade.py   screens before brute force, cheap first
gallery.py   a gallery that stays open: prepared once for many searches
screen.py    a screen: low-precision scores with a proven bound, which only rule items out
integers.py  a screen in 8-bit integers
copies.py    searches among many copies of few points

Without screens (`precisions` giving none) every answer is the same, and takes longer.
"""
