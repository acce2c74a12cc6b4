"""MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from luodi.core.catalog import require
from luodi.train.loop.figures import Figures
from luodi.train.loop.slots import Listener, Observer

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run
    from luodi.train.loop.audience import Stage

MARK = "luodi.training"  # the tag by which a training that goes on finds its run again
LONGEST = 6000  # characters of a parameter, in MLflow


class MLflow(Observer):
    """An MLflow run with the step's fields and every number: in a file of the run's folder, or on a server.

    The client is used, not the module's own state: a run of yours that is active stays so.
    """

    to: str = ""  # a tracking address; default: sqlite in mlflow.db of the run's folder
    experiment: str = ""  # default: the run's name

    def packages(self) -> Mapping[str, str]:
        return {"mlflow": "mlflow"} | ({} if self.to else {"sqlalchemy": "mlflow", "alembic": "mlflow"})

    def open(self, run: Run, model: nn.Module, stage: Stage) -> Listener:
        entities, client = require("mlflow.entities", "mlflow"), self._client(stage)
        identity = _run_of(client, self.experiment or stage.home.name, stage, entities)

        def keep(done: int, numbers: Mapping[str, float]) -> None:
            now = int(time.time() * 1000)
            client.log_batch(identity, metrics=[entities.Metric(k, v, now, done) for k, v in numbers.items()])

        stage.closing(lambda: client.set_terminated(identity))
        return Figures(keep)

    def _client(self, stage: Stage) -> Any:
        if not self.to:
            require("alembic", "mlflow")
            require("sqlalchemy", "mlflow")
        return require("mlflow", "mlflow").MlflowClient(self.to or f"sqlite:///{stage.home.resolve() / 'mlflow.db'}")


def _run_of(client: Any, experiment: str, stage: Stage, entities: Any) -> str:
    """The run of this training, begun unless there is one to go on with."""
    found = client.get_experiment_by_name(experiment)
    place = None if found else (stage.home.resolve() / "mlflow").as_uri()
    number = found.experiment_id if found else client.create_experiment(experiment, artifact_location=place)
    past = client.search_runs([number], f"tags.`{MARK}` = '{stage.title}'", max_results=1)
    if past:
        client.update_run(past[0].info.run_id, status="RUNNING")
        return past[0].info.run_id
    made = client.create_run(number, tags={MARK: stage.title}, run_name=stage.title).info.run_id
    fields = next(iter(stage.step.values())) if stage.step else {}
    told = {name: json.dumps(value, ensure_ascii=False)[:LONGEST] for name, value in fields.items()}
    client.log_batch(made, params=[entities.Param(name, value) for name, value in told.items()])
    return made
