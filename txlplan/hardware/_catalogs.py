"""The catalogs of profiles/ that describe hardware, software and what they cost."""

from __future__ import annotations

from txlplan.config import Catalog
from txlplan.hardware._device import DeviceProfile
from txlplan.hardware._economics import Economics
from txlplan.hardware._stack import StackProfile
from txlplan.hardware._system import SystemProfile

devices: Catalog[DeviceProfile] = Catalog("devices", DeviceProfile, "device")
systems: Catalog[SystemProfile] = Catalog("systems", SystemProfile, "system")
stacks: Catalog[StackProfile] = Catalog("stacks", StackProfile, "stack")
economics: Catalog[Economics] = Catalog("economics", Economics, "set of assumptions")
