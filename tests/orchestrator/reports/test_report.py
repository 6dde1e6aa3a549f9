from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from seeded import OBJECTIVES, PARAMETERS, seed_study
from sqlalchemy import event, update

from orchestrator.errors import OutputError, StudyNotFoundError
from orchestrator.reading.history import read_history
from orchestrator.reports.report import render_report, write_report
from orchestrator.storage.database import Database, open_database
from orchestrator.storage.tables import JobRow, MetricRow


class Tags(HTMLParser):
    """Collect elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._raw = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw and data.strip():
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(database: Database, **changes: object) -> str:
    seed_study(database, **changes)
    return render_report(read_history(database, str(changes.get("name", "stal_loss")))).replace(
        get_plotlyjs(), "PLOTLY"
    )


def figures(page: str) -> list[dict]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)]


def test_the_report_tells_the_whole_study(local: Database) -> None:
    page = page_of(local, trials=40, running=1, budget=60)
    text = Tags(page).text
    for expected in (
        "40 of 60 trials",
        "highest validation accuracy",
        "device time",
        "Pareto front",
        "Parameter importance",
        "Parallel coordinates",
        "Learning curves",
        "Firing rates by layer",
        "oom",
        "out of memory",
        "/data/runs/stal_loss/trial_00012/trial.log",
        "interrupted",
    ):
        assert expected in text
    for trial in read_history(local, "stal_loss").front.trials:
        assert f"spikebench train --config /data/runs/stal_loss/trial_{trial.number:05d}/config.yaml" in text
    # one front, two histories, importances, parallel, 5 parameters x 2 objectives, 4 curves, firing rates
    assert len(figures(page)) == 1 + 2 + 1 + 1 + 10 + 4 + 1


def test_the_report_needs_no_network(local: Database) -> None:
    page = page_of(local, trials=10)
    for tag, attributes in Tags(page).elements:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base"}
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "default-src 'none'" in page
    assert "showSendToCloud: false" in page
    assert "http:" not in page
    assert "https:" not in page


def test_text_of_trials_is_escaped(local: Database) -> None:
    evil = "</script><script>alert(1)</script>"
    seed_study(
        local,
        name="odd & <b>bold</b>",
        trials=30,
        parameters={**PARAMETERS, "optimizer.name": {"type": "categorical", "choices": [evil, "<i>lamb</i>"]}},
    )
    with local.begin() as connection:
        connection.execute(update(JobRow).where(JobRow.end_reason == "oom").values(end_detail=evil))
    page = render_report(read_history(local, "odd & <b>bold</b>")).replace(get_plotlyjs(), "PLOTLY")
    assert "alert(1)</script>" not in page
    assert "<b>bold</b>" not in page
    assert "<i>lamb" not in page
    assert evil in Tags(page).text


def test_passwords_do_not_appear(pg_url: str) -> None:
    from sqlalchemy.engine import make_url

    url = make_url(pg_url).update_query_dict({"application_name": "x"}).set(password="s3cr3t")
    database = open_database(url.render_as_string(hide_password=False), create=True)
    page = page_of(database, trials=6)
    database.engine.dispose()
    assert "s3cr3t" not in page
    assert "***" in page


def test_an_infeasible_study_says_so(local: Database) -> None:
    page = page_of(local, trials=10, constraints=[{"metric": "val_accuracy", "min": 0.999}])
    text = Tags(page).text
    assert "No trial keeps the constraints (val_accuracy >= 0.999). These miss them least." in text
    assert "misses by" in text
    assert "least violating (5)" in [trace.get("name") for trace in figures(page)[0]["data"]]


def test_a_study_without_results_has_a_report(local: Database) -> None:
    text = Tags(page_of(local, trials=0, waiting=2, budget=5)).text
    assert "No trial has finished yet." in text
    assert "0 of 5 trials" in text


def test_few_trials_hide_importances(local: Database) -> None:
    assert "Needs 4 finished trials; there are 3." in Tags(page_of(local, trials=3)).text


def test_one_objective_lists_its_best_trials(local: Database) -> None:
    page = page_of(local, trials=30, objectives=OBJECTIVES[:1])
    text = Tags(page).text
    assert "Best trials" in text
    assert "Pareto" not in text
    assert text.count("spikebench train --config") == 10
    best = max(read_history(local, "stal_loss").finished, key=lambda trial: trial.values[0])
    assert text.index(f"trial_{best.number:05d}/config.yaml") == min(
        m.start() for m in re.finditer(r"trial_\d{5}/c", text)
    )


def test_three_objectives_have_a_figure_for_each_pair(local: Database) -> None:
    loss = {"metric": "val_loss", "direction": "minimize"}
    page = page_of(local, trials=20, objectives=[*OBJECTIVES, loss])
    titles = [(f["layout"]["xaxis"]["title"]["text"], f["layout"]["yaxis"]["title"]["text"]) for f in figures(page)[:3]]
    assert titles == [
        ("Validation spike density", "Validation accuracy [%]"),
        ("Validation loss", "Validation accuracy [%]"),
        ("Validation loss", "Validation spike density"),
    ]


def test_missing_and_odd_values_do_not_break_it(local: Database) -> None:
    seed_study(local, trials=12, epochs=2)
    with local.begin() as connection:
        connection.execute(update(MetricRow).where(MetricRow.job_id == 1).values(value=0.0))
        connection.execute(MetricRow.__table__.delete().where(MetricRow.job_id == 2))
        connection.execute(update(JobRow).where(JobRow.id == 3).values(params={"loss.omega": 1e-5}))
    page = render_report(read_history(local, "stal_loss"))
    assert "NaN" not in page.replace(get_plotlyjs(), "")


def test_the_file_is_replaced_whole(local: Database, tmp_path: Path) -> None:
    seed_study(local, trials=3)
    path = tmp_path / "new" / "report.html"
    assert write_report(local, "stal_loss", path) == path
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_a_folder_that_cannot_be_written_is_named(local: Database, tmp_path: Path) -> None:
    seed_study(local, trials=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write the report .*file/report\.html.*--output"):
        write_report(local, "stal_loss", tmp_path / "file" / "report.html")


def test_an_unknown_study_is_refused(local: Database, tmp_path: Path) -> None:
    seed_study(local, trials=1)
    with pytest.raises(StudyNotFoundError, match="stal_loss"):
        write_report(local, "stal_lost", tmp_path / "report.html")


@pytest.mark.system
def test_ten_thousand_trials_are_read_with_a_few_statements(local: Database, tmp_path: Path) -> None:
    seed_study(local, trials=10_000, layers=())
    statements: list[str] = []
    event.listen(local.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    path = write_report(local, "stal_loss", tmp_path / "report.html")
    assert 0 < len(statements) < 40
    assert path.stat().st_size < 12e6
