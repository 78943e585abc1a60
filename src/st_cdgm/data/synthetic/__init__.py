"""A small physical climate with a known causal graph: the embedded default data."""

from __future__ import annotations

from st_cdgm.data.synthetic.climate import SyntheticClimate as SyntheticClimate
from st_cdgm.data.synthetic.climate import simulate as simulate
from st_cdgm.data.synthetic.config import GROUPS as GROUPS
from st_cdgm.data.synthetic.config import VARIABLES as VARIABLES
from st_cdgm.data.synthetic.config import CausalGraph as CausalGraph
from st_cdgm.data.synthetic.config import Edge as Edge
from st_cdgm.data.synthetic.config import Intervention as Intervention
from st_cdgm.data.synthetic.config import SyntheticConfig as SyntheticConfig
from st_cdgm.data.synthetic.writer import SyntheticPaths as SyntheticPaths
from st_cdgm.data.synthetic.writer import truth_document as truth_document
from st_cdgm.data.synthetic.writer import write_climate as write_climate
from st_cdgm.data.synthetic.writer import write_synthetic as write_synthetic
