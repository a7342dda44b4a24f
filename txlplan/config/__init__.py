"""Strict reading and writing of typed data: TOML for people, plain JSON values for records.

A TOML key is the field's name without its unit suffix (`memory_bytes` is written `memory = "16 GiB"`); plain values use
the field names and SI numbers. An unknown key is an error that names the file, the key and the nearest valid key.
"""

from txlplan.config._catalog import Catalog
from txlplan.config._dump import to_plain, to_toml
from txlplan.config._load import from_plain, parse_toml, read_toml

__all__ = ["Catalog", "from_plain", "parse_toml", "read_toml", "to_plain", "to_toml"]
