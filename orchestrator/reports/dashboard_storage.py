"""Optuna's storage as the dashboard is to see it: names in words, and learning curves of any number of objectives."""

from __future__ import annotations

import threading
import time
from typing import Any

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.study._frozen import FrozenStudy
from sqlalchemy import select

from orchestrator.reading.history import read_history
from orchestrator.reading.labels import metric_label
from orchestrator.reports.report_figures import curve_figure
from orchestrator.storage.database import Database
from orchestrator.storage.tables import StudyRow

METRIC_NAMES = "study:metric_names"
PLOT = "dashboard:plot_data:"  # followed by the figure's id, a colon and the number of a piece
FRESH_SECONDS = 10.0  # how long curves are shown before they are read again
SHARE = 10.0  # they are read again no sooner than after so many times what reading them took


class DashboardStorage(_CachedStorage):
    """Read a study for the dashboard; what is added here is written nowhere.

    Args:
        backend: Optuna's connections to the database.
        database: the same database, opened as ours.
    """

    def __init__(self, backend: RDBStorage, database: Database) -> None:
        super().__init__(backend)
        self._database = database
        self._asked = threading.local()
        self._curves: dict[int, tuple[float, dict[str, str]]] = {}
        self._lock = threading.Lock()

    def open(self, study_id: int | None) -> None:
        """Say which study the request of this thread shows; only its curves are drawn.

        Args:
            study_id: Optuna's id, or None for a request about no single study.
        """
        self._asked.study = study_id

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all studies, the oldest first."""
        studies = sorted(super().get_all_studies(), key=lambda study: study._study_id)
        for study in studies:
            study.system_attrs = self._dressed(study._study_id, study.system_attrs)
        return studies

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return what is kept beside a study, with what is added here."""
        return self._dressed(study_id, super().get_study_system_attrs(study_id))

    def _dressed(self, study_id: int, attrs: dict[str, Any]) -> dict[str, Any]:
        named = {METRIC_NAMES: [metric_label(name) for name in attrs.get(METRIC_NAMES, [])]}
        curves = self._curves_of(study_id) if getattr(self._asked, "study", None) == study_id else {}
        return {**attrs, **(named if METRIC_NAMES in attrs else {}), **curves}

    def _curves_of(self, study_id: int) -> dict[str, str]:
        with self._lock:
            until, curves = self._curves.get(study_id, (0.0, {}))
            began = time.monotonic()
            if began >= until:
                curves = self._draw(study_id)
                took = time.monotonic() - began
                self._curves[study_id] = (began + took + max(FRESH_SECONDS, SHARE * took), curves)
            return curves

    def _draw(self, study_id: int) -> dict[str, str]:
        query = select(StudyRow.name).where(StudyRow.optuna_study_id == study_id)
        with self._database.read() as connection:
            name = connection.execute(query).scalar_one_or_none()
        if name is None:  # a study of Optuna's alone, which has no curves here
            return {}
        history = read_history(self._database, name)
        drawn = {}
        for objective in history.study.objectives:
            if (figure := curve_figure(history, objective.metric)) is not None:
                words = f"Learning curves: {metric_label(objective.metric, unit=True)}"
                figure.update_layout(title={"text": words, "x": 0.02, "font": {"size": 14}})
                figure.update_layout(margin={"t": 48})
                drawn[f"{PLOT}learning-curves-{objective.metric}:0"] = str(figure.to_json())
        return drawn
