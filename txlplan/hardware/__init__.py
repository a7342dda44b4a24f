"""What exists: devices, links, systems, clusters and software stacks, as typed data read from profiles/."""

from txlplan.hardware._catalogs import devices, stacks, systems
from txlplan.hardware._cluster import Cluster
from txlplan.hardware._device import DeviceProfile
from txlplan.hardware._stack import EfficiencyPoint, OpKind, Spread, StackProfile
from txlplan.hardware._system import Host, Link, Price, SystemProfile

__all__ = [
    "Cluster",
    "DeviceProfile",
    "EfficiencyPoint",
    "Host",
    "Link",
    "OpKind",
    "Price",
    "Spread",
    "StackProfile",
    "SystemProfile",
    "devices",
    "stacks",
    "systems",
]
