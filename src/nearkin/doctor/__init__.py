"""The doctor: what ails a run or a set of vectors, by which evidence, and what cures it."""

from nearkin.doctor.illness import ILLNESSES as ILLNESSES
from nearkin.doctor.illness import Diagnosis as Diagnosis
from nearkin.doctor.live import Doctor as Doctor
from nearkin.doctor.live import examine as examine
