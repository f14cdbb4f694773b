"""Makes `small_models`, and the damage done to artifacts, importable from the tests here."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("compiler", "formats")]
