from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console
from seeded import seed_study

from orchestrator.reading.overview import read_studies, studies_table
from orchestrator.storage.database import Database


def test_device_time_is_told_as_people_tell_it(local: Database) -> None:
    seed_study(local)
    (snapshot,) = read_studies(local)
    limited = replace(snapshot.study, budget_hours=12.0)
    console = Console(file=io.StringIO(), width=110)
    for study, seconds in ((snapshot.study, 1.03), (limited, 7530.0), (limited, 50_000.0)):
        console.print(studies_table([replace(snapshot, study=study, device_seconds=seconds)], {}, 110))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    for expected in ("device time", " 1.0 s ", " 2 h 05 min ", " 9 h 54 min left ", " 13 h 53 min ", " 0.0 s left "):
        assert expected in said
    assert "hours" not in said
