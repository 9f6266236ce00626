"""Embedded tasks whose images are drawn with Pillow: charts, clocks, grids and shapes.

Each file has one task: `make` draws up a problem (the scene, a question, the answer), `draw` shows the scene. To add a
task, list it here and in `EMBEDDED_TASKS` of options.py.
"""

from typing import Any

from rlfr_vlm.data.tasks.charts import CHARTS
from rlfr_vlm.data.tasks.clocks import CLOCKS
from rlfr_vlm.data.tasks.grids import GRIDS
from rlfr_vlm.data.tasks.problems import Problem, Task
from rlfr_vlm.data.tasks.shapes import SHAPES

TASKS: dict[str, Task[Any]] = {task.name: task for task in (CHARTS, CLOCKS, GRIDS, SHAPES)}

__all__ = ["TASKS", "Problem", "Task"]
