"""`nearkin list`: every name that the other commands take."""

from nearkin import registry

KINDS = {
    "data sets": registry.DATASETS,
    "backbones": registry.BACKBONES,
    "closed forms": registry.FORMS,
    "losses": [*registry.LOSSES, "pml:CLASS"],
    "miners": registry.MINERS,
    "graph builders": registry.BUILDERS,
    "graph layers": registry.LAYERS,
    "samplers": registry.SAMPLERS,
    "augmentations": registry.AUGMENTS,
    "optimizers": registry.OPTIMIZERS,
    "schedules": registry.SCHEDULES,
    "precisions": registry.PRECISIONS,
    "metrics": registry.METRICS,
    "refinements": registry.SOURCES,
    "studies": registry.STUDIES,
}


def list_names() -> None:
    """Print every name that the other commands take.

    Example: nearkin list
    """
    for kind, names in KINDS.items():
        print(f"{kind}: {', '.join(names)}")
