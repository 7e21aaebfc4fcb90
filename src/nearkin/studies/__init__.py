"""Studies: questions, the runs that they take, and what came of them (study.py says of what)."""

from nearkin.registry import STUDIES as STUDIES
