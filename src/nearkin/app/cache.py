"""`nearkin cache`: decoded pictures and feature maps kept between runs, shown or removed."""

from __future__ import annotations

from typing import Literal

from tyro.conf import Positional


def cache(act: Positional[Literal["show", "clear"]] = "show") -> None:
    """Show what the folder of caches holds, or remove it.

    Photographs are decoded once, and the feature maps of --tail made once, into this folder:
    NEARKIN_CACHE names it, else it is the platform's own folder for caches. Above
    NEARKIN_CACHE_GB, by default 50, the caches that were not used for the longest time go.

    Example: nearkin cache

    Example: nearkin cache clear

    Args:
        act: show or clear.
    """
    from nearkin.data.cache_folder import amount, cache_folder, caches, clear, most_bytes

    folder, most = cache_folder(), most_bytes()
    found = clear() if act == "clear" else caches()
    total = amount(sum(one.bytes for one in found))
    of = f", of {amount(most)} at most" if act == "show" else " removed"
    print(f"{folder}: {len(found)} caches, {total}{of}")
    for one in found:
        print(one)
