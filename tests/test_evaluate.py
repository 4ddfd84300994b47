import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from xtb_models import hydrogen_cyanide, label, xtb

from nequip_hessian.analysis.accuracy import geometry_errors
from nequip_hessian.analysis.cache import Cache, file_checksum, file_name
from nequip_hessian.analysis.path import ReactionPath
from nequip_hessian.analysis.prediction import masses_of, predict
from nequip_hessian.errors import ConfigError, EngineError, StoreError
from nequip_hessian.evaluate import Model, Options, evaluate, load_models
from nequip_hessian.evaluation.models import distinct_names
from nequip_hessian.report import figures as plots
from nequip_hessian.report import write_report
from nequip_hessian.report.tables import text_table
from nequip_hessian.store import HessianStore, StoreWriter


def write_store(path, records, codes=None):
    with StoreWriter(path, attributes={"title": "Hydrogen <cyanide> & friends"}) as writer:
        writer.extend(records)
        if codes is not None:
            writer.set_split("reactions", ["train", "val", "test", "path"], np.array(codes, dtype=np.int8))
    return HessianStore(path)


@pytest.fixture(scope="module")
def records():
    reaction = list(hydrogen_cyanide().values())
    rng = np.random.default_rng(0)
    displaced = [
        label("HCN", r.positions + rng.normal(scale=0.05, size=(3, 3)), kind="displaced", group="HCN to HNC")
        for r in reaction
    ]
    water = label(
        "OH2", [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]], hessian=False, kind="other", group="water"
    )
    return [*reaction, *displaced, water]


@pytest.fixture(scope="module")
def store(records, tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store") / "hcn.zarr", records, [2, 2, 2, 3, 3, 3, 0])


@pytest.fixture(scope="module")
def models():
    return [Model("IPEA1", xtb("IPEA1-xTB"), checksum="1"), Model("GFN1 <b>", xtb("GFN1-xTB"), checksum="2")]


@pytest.fixture(scope="module")
def report(models, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    evaluation = evaluate(models, store, out)
    return evaluation, write_report(evaluation, out).parent


def test_by_default_all_test_parts_are_evaluated(report):
    evaluation, _ = report
    assert [g.index for g in evaluation.geometries] == [0, 1, 2, 3, 4, 5]
    assert [g.part for g in evaluation.geometries] == ["test"] * 3 + ["path"] * 3
    assert "parts test, path" in evaluation.notes[0]


def test_figures_are_those_of_the_single_geometries(report, models, store):
    evaluation, _ = report
    records = store[:6]
    predictions = predict(models[1].calculator, records)
    errors = [geometry_errors(r, p, masses_of(r.numbers)) for r, p in zip(records, predictions, strict=True)]
    figures = evaluation.all_figures(evaluation.models[1])
    assert figures["hessian_mae"].value == pytest.approx(np.mean([e.hessian.mae for e in errors]), rel=1e-6)
    assert figures["force_mae"].value == pytest.approx(np.mean([e.force_mae for e in errors]), rel=1e-4)
    assert figures["frequency_mae"].n == 11  # stationary points only
    assert figures["hessian_mae"].n == 6
    assert figures["consistency"].value < 1e-3
    kinds = evaluation.by_kind(evaluation.models[1])
    assert list(kinds) == ["minimum", "transition_state", "displaced"]
    assert kinds["displaced"]["frequency_mae"].n == 0
    assert list(evaluation.by_part(evaluation.models[1])) == ["test", "path"]


def test_reactions_and_own_minima(report):
    evaluation, _ = report
    for result, barrier in zip(evaluation.models, (3.800, 2.517), strict=True):
        error = result.reactions[0]
        assert error.failure is None
        assert error.forward == pytest.approx(barrier, abs=5e-3)
        assert error.reference_forward == pytest.approx(3.1754, abs=1e-3)
        assert error.n_imaginary == 1
        assert len(result.relaxed) == 2
        assert all(e.vibrations.n == 4 and e.rmsd < 0.05 for e in result.relaxed.values())


def test_the_report_is_complete_and_self_contained(report):
    evaluation, out = report
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [m["sha256"] for m in document["models"]] == ["1", "2"]
    assert document["store"]["sha256"] == file_checksum(Path(evaluation.store))
    assert {"nequip-hessian", "numpy", "ase", "torch"} <= set(document["versions"])
    figure = document["models"][1]["figures"]["hessian_mae"]
    assert figure["value"] == pytest.approx(evaluation.all_figures(evaluation.models[1])["hessian_mae"].value)
    assert (figure["n"], figure["unit"]) == (6, "eV/Å²")
    assert document["models"][0]["saddle_order_confusion"] == [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert len(document["models"][0]["paths"]["HCN to HNC"]["energies_eV"]) == 9
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "GFN1 &lt;b&gt;" in page
    assert "<b>GFN1" not in page
    assert "Hydrogen &lt;cyanide&gt; &amp; friends" in page
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) == {"data:"}
    assert "<script" not in page
    assert "url(" not in page
    assert page.count("<img") == len(list((out / "plots").glob("*.svg"))) == 10
    assert len(list((out / "plots").glob("*.png"))) == 10
    assert len(list((out / "paths").glob("*/HCN_to_HNC.extxyz"))) == 2


def test_tables_say_the_same_as_the_json(report):
    evaluation, out = report
    with (out / "summary.csv").open(encoding="utf-8") as stream:
        rows = {(r["model"], r["subset"], r["metric"]): r for r in csv.DictReader(stream)}
    figures = evaluation.all_figures(evaluation.models[0])
    for name, figure in figures.items():
        row = rows["IPEA1", "all", name]
        assert row["n"] == str(figure.n)
        assert row["value"] == ("" if figure.value is None else repr(figure.value))
    with (out / "geometries.csv").open(encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 12
    table = text_table(evaluation)
    markdown = (out / "summary.md").read_text(encoding="utf-8").splitlines()
    assert {line.count("|") - line.count(r"\|") for line in markdown} == {2 + len(evaluation.models)}
    said = [[part.strip() for part in line.strip("| ").replace(r"\|", "¦").split("|")] for line in markdown[2:]]
    printed = [re.split(r"\s{2,}", line.replace("|", "¦")) for line in table.splitlines()[2:] if line.strip()]
    assert said == printed
    assert "Hessian MAE" in table
    assert "n=6" in table
    assert "kcal/mol" in table


class Interrupted:
    """xTB that is interrupted in the third geometry."""

    def __init__(self, allowed):
        self.inner, self.allowed, self.done = xtb("GFN1-xTB"), allowed, 0

    def evaluate_many(self, images):
        found = []
        for atoms in images:
            if self.done == self.allowed:
                raise KeyboardInterrupt
            self.done += 1
            probe = atoms.copy()
            probe.calc = self.inner
            found.append((probe.get_potential_energy(), probe.get_forces()))
        return found

    def get_hessian(self, atoms, indices=None):
        return self.inner.get_hessian(atoms, indices)


def test_an_interrupted_run_goes_on_where_it_was(store, tmp_path, monkeypatch):
    monkeypatch.setattr("nequip_hessian.evaluation.of_geometries.BATCH", 2)
    monkeypatch.setattr("nequip_hessian.evaluation.of_geometries.PROBED", 0)
    options = Options(neb=False, relax=False)
    first = Interrupted(4)
    with pytest.raises(KeyboardInterrupt):
        evaluate([Model("m", first, checksum="x")], store, tmp_path, options)
    assert len(list(tmp_path.rglob("predictions-*.npz"))) == 2
    second = Interrupted(-1)
    resumed = evaluate([Model("m", second, checksum="x")], store, tmp_path, options)
    assert second.done == 2
    fresh = evaluate([Model("m", xtb("GFN1-xTB"), checksum="x")], store, tmp_path / "fresh", options)
    for name, figure in fresh.all_figures(fresh.models[0]).items():
        again = resumed.all_figures(resumed.models[0])[name]
        assert again.n == figure.n
        if figure.value is None:
            assert again.value is None
        else:
            assert again.value == pytest.approx(figure.value, rel=1e-3, abs=1e-9)
    other = Interrupted(-1)
    evaluate([Model("m", other, checksum="another file")], store, tmp_path, options)
    assert other.done == 6  # another model of the same name starts afresh


def test_what_is_kept_comes_back_as_it_was(tmp_path, records):
    cache = Cache(tmp_path / "c", {"a": 1})
    model = xtb("GFN1-xTB")
    predictions = predict(model, [records[0], records[6]])
    cache.put_predictions([0, 6], predictions)
    back = cache.predictions()
    np.testing.assert_array_equal(back[0].hessian, predictions[0].hessian)
    np.testing.assert_array_equal(back[6].forces, predictions[1].forces)
    assert back[6].hessian is None
    path = ReactionPath(np.zeros((5, 3, 3)), np.arange(5.0), np.ones((5, 3, 3)), True, 7, 0.01, "idpp", None, "torn")
    cache.put_path(3, 5, 400, path)
    again = cache.path(3, 5, 400)
    assert (again.converged, again.steps, again.guess, again.n_imaginary, again.failure) == (
        True,
        7,
        "idpp",
        None,
        "torn",
    )
    np.testing.assert_array_equal(again.energies, path.energies)
    assert cache.path(3, 9, 400) is None  # another number of images is another search
    assert cache.path(3, 5, 100) is None
    assert not list((tmp_path / "c").glob(".*tmp"))
    assert file_name("a/b") != file_name("a:b")
    assert file_name("best") == "best"


def test_a_model_that_always_fails_is_reported_not_raised(store, tmp_path):
    class Fails:
        def evaluate_many(self, images):
            raise RuntimeError("no weights")

    good = Model("good", xtb("GFN1-xTB"), checksum="1")
    bad = Model("bad", Fails(), checksum="2")
    evaluation = evaluate([good, bad], store, tmp_path, Options(split=("reactions:test",), relax=False, images=5))
    figures = evaluation.all_figures(evaluation.models[1])
    assert figures["failure_rate"].value == 1.0
    assert figures["imaginary_agreement"].value == 0.0
    assert figures["neb_failure_rate"].value == 1.0
    page = write_report(evaluation, tmp_path).read_text(encoding="utf-8")
    assert "RuntimeError: no weights" in page


def test_a_selection_without_hessians_reactions_or_kinds(records, tmp_path):
    store = write_store(tmp_path / "s.zarr", [records[6], records[6].replace(kind=None, group=None)])
    evaluation = evaluate([Model("m", xtb("GFN1-xTB"))], store, tmp_path / "out")
    assert any("no evaluated geometry has a Hessian" in note for note in evaluation.notes)
    assert any("no reaction" in note for note in evaluation.notes)
    figures = evaluation.all_figures(evaluation.models[0])
    assert figures["hessian_mae"].n == figures["barrier_mae"].n == 0
    assert figures["force_mae"].n == 18
    page = write_report(evaluation, tmp_path / "out").read_text(encoding="utf-8")
    assert "2 geometries" in page


def test_one_and_two_atoms(tmp_path):
    hydrogen = label("H2", [[0, 0, 0], [0, 0, 0.74]], kind="minimum", group="H2")
    helium = label("He", [[0, 0, 0]], kind="minimum", group="He")
    store = write_store(tmp_path / "s.zarr", [hydrogen, helium])
    evaluation = evaluate([Model("m", xtb("GFN1-xTB"))], store, tmp_path / "out")
    figures = evaluation.all_figures(evaluation.models[0])
    assert figures["frequency_mae"].n == 1
    assert figures["hessian_mae"].n == 2
    assert len(evaluation.models[0].relaxed) == 1
    write_report(evaluation, tmp_path / "out")


def test_wrong_selections_are_refused_in_one_line(store, models, tmp_path):
    cases = {
        ("nothing:test",): "no split scheme 'nothing'",
        ("reactions:tests",): "has no part 'tests'; it has train, val, test, path",
    }
    for split, message in cases.items():
        with pytest.raises((ConfigError, StoreError), match=re.escape(message)):
            evaluate(models, store, tmp_path, Options(split=split))
    with pytest.raises(ConfigError, match="limit: expected 1 or more"):
        evaluate(models, store, tmp_path, Options(limit=0))
    with pytest.raises(ConfigError, match="images: expected 4 or more"):
        evaluate(models, store, tmp_path, Options(images=2))
    with pytest.raises(ConfigError, match="different names"):
        evaluate([models[0], models[0]], store, tmp_path)

    class Knows:
        species = ("H", "C")

    with pytest.raises(ConfigError, match="small: the model has not seen N"):
        evaluate([Model("small", Knows())], store, tmp_path)
    assert not (tmp_path / "cache").exists()


def test_a_limit_is_spread_evenly(store, models, tmp_path):
    options = Options(limit=3, neb=False, relax=False)
    evaluation = evaluate(models[:1], store, tmp_path, options)
    assert [g.index for g in evaluation.geometries] == [0, 2, 5]
    assert any("3 of 6" in note for note in evaluation.notes)


def test_names_of_models_are_told_apart():
    paths = ["runs/ef/last.ckpt", "runs/efh/last.ckpt", "m.nequip.zip"]
    assert distinct_names([("", p) for p in paths]) == ["ef/last", "efh/last", "m"]
    assert distinct_names([("E-F", paths[0]), ("", paths[1])]) == ["E-F", "last"]
    with pytest.raises(ConfigError, match="two have the same name"):
        distinct_names([("a", paths[0]), ("a", paths[1])])
    assert distinct_names([("", "tblite"), ("", "tblite:GFN1-xTB")]) == ["GFN2-xTB", "GFN1-xTB"]


def test_any_calculator_can_be_named(store, models, tmp_path):
    named = load_models(["tblite:GFN1-xTB", "slack=tblite:GFN1-xTB"], options={"slack": {"accuracy": 1.0}})
    assert [model.name for model in named] == ["GFN1-xTB", "slack"]
    assert named[0].identity != named[1].identity
    options = Options(limit=3, neb=False, relax=False)
    found = evaluate([named[0], models[1]], store, tmp_path, options)
    assert "central differences of its forces, steps of 0.005" in found.models[0].notes[0]
    first, second = (found.all_figures(model) for model in found.models)
    assert first["hessian_mae"].value == pytest.approx(second["hessian_mae"].value, rel=1e-3)
    with pytest.raises(ConfigError, match="options for other: no model of that name"):
        load_models(["tblite"], options={"other": {}})
    with pytest.raises(EngineError, match="nowhere"):
        load_models(["ase:nowhere:Calculator"])


def test_density_of_frequencies_is_that_of_each_model_and_of_the_reference(report):
    """The area under a line is the number of its modes, its mean their mean."""
    evaluation, _ = report
    (axis,) = plots.spectra_plot(evaluation).axes
    assert len(axis.lines) == len(evaluation.models)
    (shaded,) = axis.collections
    reference = evaluation.models[0].parity["frequency"][0]
    outline = shaded.get_paths()[0].vertices
    height = outline[:, 1].max()
    assert height == pytest.approx(plots.broadened(reference, outline[:, 0]).max(), rel=1e-6)
    for drawn, model in zip(axis.lines, evaluation.models, strict=True):
        found = model.parity["frequency"][1]
        grid, density = drawn.get_xdata(), drawn.get_ydata()
        area = np.trapezoid(density, grid)
        assert area == pytest.approx(len(found), rel=1e-3)
        assert np.trapezoid(density * grid, grid) / area == pytest.approx(np.mean(found), rel=1e-3)


def test_models_differ_without_colour(report):
    """In grey two models are told apart by hatch, marker and line, in the plots and in their legends."""
    evaluation, _ = report
    for style in (lambda k: plots.bar_style(k)["hatch"], plots.marker, plots.line):
        assert len({str(style(k)) for k in range(6)}) == 6
    legend = plots.by_kind_plot(evaluation).legends[0]
    assert [patch.get_hatch() for patch in legend.get_patches()] == list(plots.HATCHES[: len(evaluation.models)])
    bars = {bar.get_hatch() for axis in plots.by_kind_plot(evaluation).axes for bar in axis.patches}
    assert bars == set(plots.HATCHES[: len(evaluation.models)])
