"""Studies: questions, the runs that they take, and their answers; study.py describes one."""

from nearkin.registry import STUDIES as STUDIES
