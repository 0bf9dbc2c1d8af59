"""Tasks, the learning problems of episodes: images, tables, toy functions and a user's own.

A task is described by its options as they are written in an experiment, for example
`{"name": "mnist", "size": 14, "classes": [0, 1, 2]}`. A name with a colon is the import path
of a user's own: `{"name": "my_package.my_module:MyTask", "depth": 3}` calls `MyTask(depth=3)`.
From Python, a task object or its class may stand in place of the name or of the whole mapping.
"""

from __future__ import annotations

from blur_es.tasks.arrays import ArrayTask
from blur_es.tasks.base import Samples, Task
from blur_es.tasks.frames import from_dataframe
from blur_es.tasks.images import ImageTask, LabelledImages
from blur_es.tasks.locations import data_directory
from blur_es.tasks.registry import (
    TaskDescription,
    check_task_data,
    check_task_options,
    describe_tasks,
    make_task,
    task_names,
)

__all__ = [
    "ArrayTask",
    "ImageTask",
    "LabelledImages",
    "Samples",
    "Task",
    "TaskDescription",
    "check_task_data",
    "check_task_options",
    "data_directory",
    "describe_tasks",
    "from_dataframe",
    "make_task",
    "task_names",
]
