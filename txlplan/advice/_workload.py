"""The workload that is costed, in one place: the same question gets the same figures from estimate, plan and compare."""

from __future__ import annotations

from typing import Any

from txlplan import planner
from txlplan.choices import Task
from txlplan.errors import InputError
from txlplan.model import models
from txlplan.workload import Optimization, Workload


def workload_of(model: str, task: Task, **settings: Any) -> Workload:
    """A model, by id or file, with what is to be done with it; trained as `txlplan run` trains where nobody says otherwise.

    Clipping, for one, takes a pass over the gradients in each step. `settings` are fields of a Workload; one that is None is
    left as it is there.
    Raises InputError (ConfigError for an unknown model).
    """
    config = models.get(model)
    optimization = planner.recipe(config, None) if task == "train" else Optimization()
    try:
        stated = {name: value for name, value in settings.items() if value is not None}
        return Workload(model=config, task=task, optimization=optimization, **stated)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from None
