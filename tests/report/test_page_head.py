"""Title and first words of the evaluation page, with models whose numbers cost nothing."""

import re

import pytest
from ase.calculators.emt import EMT
from emt_pairs import labelled_pair

from nequip_hessian.evaluate import Model, Options, evaluate
from nequip_hessian.potentials import ForeignPotential
from nequip_hessian.report import write_report
from nequip_hessian.store import HessianStore, StoreWriter

KINDS = ("minimum", "minimum", "minimum", "transition_state", "path", "displaced", "displaced")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with StoreWriter(folder / "pairs.zarr", attributes={"title": "Pairs of <N>"}) as writer:
        for position, kind in enumerate(KINDS):
            writer.append(labelled_pair("N2", 1.0 + 0.05 * position, kind=kind))
    models = [Model(name, ForeignPotential(EMT(), "EMT"), checksum=name) for name in ("one", "two")]
    evaluation = evaluate(models, HessianStore(folder / "pairs.zarr"), folder, Options(tasks=("consistency",)))
    return write_report(evaluation, folder).read_text(encoding="utf-8")


def test_the_title_of_the_window_is_that_of_the_page(page):
    (title,) = re.findall(r"<title>(.*?)</title>", page)
    (head,) = re.findall(r"<h1>(.*?)</h1>", page)
    assert title == head == "one and two on Pairs of &lt;N&gt;"


def test_kinds_are_counted_in_words(page):
    assert "(3 minima, 1 transition state, 1 path point, 2 displaced geometries)" in page


def test_rounding_is_no_contest(page):
    (row,) = re.findall(r"<tr><td>Hessian against differences of the model&#x27;s own forces.*?</tr>", page)
    assert "best" not in row
    assert row.count("<td>") == 3
