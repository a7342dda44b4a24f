"""What exists: devices, links, systems, clusters and software stacks, as typed data read from profiles/."""

from txlplan.hardware._catalogs import devices, stacks, systems
from txlplan.hardware._cluster import Cluster
from txlplan.hardware._device import DeviceProfile
from txlplan.hardware._fallback import nearest_stack
from txlplan.hardware._kernels import KernelModel, ReservedModel
from txlplan.hardware._stack import EfficiencyPoint, Implementation, OpKind, Spread, StackProfile
from txlplan.hardware._system import Host, Link, Price, SystemProfile

__all__ = [
    "Cluster",
    "DeviceProfile",
    "EfficiencyPoint",
    "Host",
    "Implementation",
    "KernelModel",
    "Link",
    "OpKind",
    "Price",
    "ReservedModel",
    "Spread",
    "StackProfile",
    "SystemProfile",
    "devices",
    "nearest_stack",
    "stacks",
    "systems",
]
