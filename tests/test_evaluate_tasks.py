"""Saddle, irc, md and thermochemistry of an evaluation: a model that is its own reference, and one that fails."""

import json
from dataclasses import fields
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from browser import check_page
from xtb_models import hydrogen_cyanide, label, xtb

from nequip_hessian.analysis.md import Dynamics, RampSettings
from nequip_hessian.analysis.outcomes import IrcErrors, SaddleErrors
from nequip_hessian.errors import ConfigError
from nequip_hessian.evaluate import Model, Options, evaluate
from nequip_hessian.evaluation.models import load_models
from nequip_hessian.report import write_report
from nequip_hessian.report.tables import text_table
from nequip_hessian.store import HessianStore, StoreWriter

RAMP = RampSettings(start=100, increment=100, maximum=200, hold=0.01, nve=0.02)
TASKS = ("accuracy", "thermochemistry", "saddle", "irc", "md")


class Blind:
    """Knows hydrogen, carbon and oxygen only."""

    species = ("H", "C", "O")
    inner = None

    def __init__(self):
        self.real = xtb("GFN1-xTB")

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "hcn.zarr"
    moved = label("HCN", [[0, 0.3, -1.0], [0, 0, 0], [0, 0, 1.2]], kind="displaced", group="HCN to HNC")
    oxide = label("CO", [[0, 0, 0], [0, 0, 1.13]], kind="minimum", group="CO", label="carbon monoxide")
    with StoreWriter(path, attributes={"title": "Hydrogen cyanide"}) as writer:
        writer.extend([*hydrogen_cyanide().values(), moved, oxide])
    return HessianStore(path)


@pytest.fixture(scope="module")
def report(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    models = [Model("GFN2", xtb("GFN2-xTB"), checksum="1"), Model("blind", Blind(), checksum="2")]
    evaluation = evaluate(models, store, out, Options(tasks=TASKS, molecules=3, ramp=RAMP))
    return evaluation, write_report(evaluation, out).parent


def test_a_model_that_is_the_reference_finds_what_is_labelled(report):
    evaluation, _ = report
    model = evaluation.models[0]
    figures = evaluation.all_figures(model)
    assert [e.start for e in model.saddles] == ["interpolated", "perturbed 1"]
    assert all(e.failure is None and e.connects and e.n_imaginary == 1 for e in model.saddles)
    assert figures["saddle_success"].value == 1
    assert figures["saddle_rmsd"].value < 0.01
    assert figures["saddle_barrier_mae"].value < 1e-3
    assert figures["saddle_gradients"].value < figures["saddle_gradients_plain"].value
    path = model.ircs[0]
    assert path.failure is None
    assert path.ts_rmsd < 0.01
    assert abs(path.forward_error) < 1e-3
    assert abs(path.reverse_error) < 1e-3
    assert path.energies[0] == pytest.approx(0, abs=0.02)  # the reactant's side comes first
    assert path.energies[-1] == pytest.approx(path.forward - path.reverse, abs=0.02)
    assert path.profile_mae < 0.01
    assert max(abs(e.gibbs_correction) for e in model.gases.values()) < 1e-4
    assert figures["gibbs_barrier_mae"].value < 1e-3
    assert figures["thermochemistry_failure_rate"].value == 0
    assert [d.survived for d in model.dynamics] == [True] * 3
    assert figures["md_failure_temperature"].value == 200


def test_an_unknown_element_is_a_counted_failure_in_every_row(report):
    evaluation, out = report
    model = evaluation.models[1]
    assert [bool(e.failure) for e in model.errors] == [True] * 4 + [False]
    reason = "has not seen N; it was trained on H, C, O"
    assert all(reason in e.failure for e in (*model.saddles, *model.ircs))
    assert [bool(d.failure) for d in model.dynamics] == [True, True, False]
    figures = evaluation.all_figures(model)
    assert figures["failure_rate"].value == pytest.approx(0.8)
    assert figures["saddle_success"].value == figures["irc_success"].value == 0
    assert figures["saddle_success"].n == 2
    assert figures["saddle_barrier_mae"].value is None
    page = (out / "report.html").read_text(encoding="utf-8")
    for what in ("saddle HCN to HNC, interpolated", "irc HCN to HNC", "md reactant"):
        assert f"<td>blind</td><td>{what}</td>" in page
    assert "Transition states found that connect" in text_table(evaluation)


def test_subsets_by_distance_and_size(report):
    evaluation, _ = report
    assert [g.distance == 0 for g in evaluation.geometries] == [True, True, True, False, True]
    table = evaluation.by_distance(evaluation.models[0])
    assert next(iter(table)) == "stationary"
    assert sum(figures["hessian_mae"].n for figures in table.values()) == 5
    assert list(evaluation.by_size(evaluation.models[0])) == ["1 to 5 atoms"]


def test_what_is_done_is_not_done_again(report, store):
    evaluation, out = report

    class Forbidden:
        species = ("H", "C", "N", "O")

        def get_hessian(self, atoms, indices=None):
            raise AssertionError("done already")

    models = [Model("GFN2", Forbidden(), checksum="1"), Model("blind", Forbidden(), checksum="2")]
    again = evaluate(models, store, out, Options(tasks=TASKS, molecules=3, ramp=RAMP))
    for old, new in zip(evaluation.models, again.models, strict=True):
        assert new.saddles == old.saddles
        assert new.ircs == old.ircs
        assert new.dynamics == old.dynamics
        assert evaluation.all_figures(old) == again.all_figures(new)


def test_the_json_is_what_its_schema_says(report):
    _, out = report
    schema = json.loads(
        (files("nequip_hessian.schemas") / "v0.1" / "evaluation.schema.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [error.message for error in validator.iter_errors(document)] == []
    for kind in (SaddleErrors, IrcErrors, Dynamics):  # nothing is added to a result and forgotten in the schema
        assert set(schema["$defs"][kind.__name__]["properties"]) == {field.name for field in fields(kind)}
    document["models"][0]["saddles"][0].pop("rmsd")
    document["models"][0]["figures"]["hessian_mae"]["n"] = -1
    document["store"]["sha256"] = "none"
    assert len(list(validator.iter_errors(document))) == 3


def test_workers_find_the_same(store, tmp_path):
    options = {"tasks": ("accuracy",), "limit": 2}
    models = load_models(["one=tblite:GFN1-xTB", "two=tblite"])
    alone = evaluate(models, store, tmp_path / "alone", Options(**options))
    shared = evaluate(models, store, tmp_path / "shared", Options(**options, workers=2))
    for first, second in zip(alone.models, shared.models, strict=True):
        for one, other in zip(first.errors, second.errors, strict=True):
            assert other.energy == pytest.approx(one.energy, abs=1e-6)
            assert other.hessian.mae == pytest.approx(one.hessian.mae, abs=1e-4)
    nameless = [Model("one", xtb("GFN1-xTB")), Model("two", xtb("GFN2-xTB"))]
    with pytest.raises(ConfigError, match="cannot be sent to 2 workers"):
        evaluate(nameless, store, tmp_path / "no", Options(**options, workers=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("saddles",)}, "tasks: expected some of accuracy"),
        ({"tasks": ()}, "found none"),
        ({"workers": 0}, "workers: expected 1 or more"),
        ({"reactions": 0}, "reactions: expected 1 or more"),
        ({"spread": 0.0}, "spread: expected more than 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Options(**options)


def test_a_browser_shows_the_tables_and_figures(report, tmp_path):
    _, out = report
    seen = check_page(out / "report.html", tmp_path)
    assert seen.rows["Transition-state searches"] == 1 + 2 * 2
    assert seen.rows["Intrinsic reaction coordinates"] == 1 + 2
    assert seen.rows["Molecular dynamics"] == 1 + 3 * 2
    assert seen.rows["In the units of HORM and HIP"] == 10
    assert seen.rows["By distance from the nearest stationary point"] > 4
    assert seen.rows["Failures"] > 8
    assert len(seen.images) == len(list((out / "plots").glob("*.svg"))) >= 9


def test_numbers_of_the_summary_are_those_of_the_json(report):
    _, out = report
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    values = [e["forward_error"] for e in document["models"][0]["saddles"]]
    values += [e["reverse_error"] for e in document["models"][0]["saddles"]]
    figure = document["models"][0]["figures"]["saddle_barrier_mae"]
    assert figure["value"] == pytest.approx(np.mean(np.abs(values)))
    assert figure["n"] == 4
    for name in ("saddles", "irc", "md"):
        assert (out / f"{name}.csv").read_text(encoding="utf-8").count("\n") >= 3
