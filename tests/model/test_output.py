import weakref

import ase
import pytest
import torch
from allegro.model import AllegroModel as PlainAllegro
from nequip.data import AtomicDataDict
from nequip.model import NequIPGNNModel as PlainNequIP
from nequip.nn import ForceStressOutput
from small_models import ALLEGRO, NEQUIP, frame, plain, rattled, with_probes

import nequip_hessian.model as ours
from nequip_hessian.errors import ConfigError, DivergedError
from nequip_hessian.model import sizes, ways
from nequip_hessian.model.builders import add_hessian_output
from nequip_hessian.model.matrix import hessians
from nequip_hessian.model.output import HessianOutput
from nequip_hessian.model.target import HESSIAN_TARGET
from nequip_hessian.train import HessianMeanSquaredError

PAIRS = {
    "nequip": (lambda: ours.NequIPGNNModel(**NEQUIP), lambda: PlainNequIP(**NEQUIP)),
    "allegro": (lambda: ours.AllegroModel(**ALLEGRO), lambda: PlainAllegro(**ALLEGRO)),
}


@pytest.fixture(params=list(PAIRS))
def pair(request):
    return tuple(make() for make in PAIRS[request.param])


def batch_of(names, n_probes, keep_cell=False):
    return AtomicDataDict.batched_from_list(
        [with_probes(frame(rattled(n, i), keep_cell=keep_cell), n_probes, i) for i, n in enumerate(names)]
    )


def test_weights_and_keys_are_those_of_the_plain_model(pair):
    mine, theirs = (model.state_dict() for model in pair)
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("keep_cell", [False, True])
def test_without_probes_it_is_the_plain_model(pair, keep_cell):
    mine, theirs = pair
    data = plain(batch_of(["CH3OH", "Al4", "HCN"] if keep_cell else ["CH3OH", "HCN"], 1, keep_cell))
    first, second = mine(dict(data)), theirs(dict(data))
    assert "hessian_product" not in first
    assert torch.equal(first["total_energy"], second["total_energy"])
    for key in ("forces", "stress", "virial"):
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("names", [["CH3OH", "HCN", "H2O"], ["Al4", "Al4"]])
def test_products_are_central_differences_of_the_plain_forces(pair, names):
    mine, theirs = pair
    data = batch_of(names, 2)
    probes = data["hessian_probe"].clone()
    out = mine(dict(data))
    torch.testing.assert_close(out["total_energy"], theirs(plain(data))["total_energy"], rtol=0, atol=1e-12)

    def forces(shift):
        return theirs({**plain(data), "pos": data["pos"] + shift})["forces"].detach()

    h = 1e-3
    for c in range(2):
        v = probes[:, 3 * c : 3 * c + 3]
        # fourth-order central differences
        slope = (8 * (forces(h * v) - forces(-h * v)) - (forces(2 * h * v) - forces(-2 * h * v))) / (12 * h)
        found = out["hessian_product"][:, 3 * c : 3 * c + 3].detach()
        torch.testing.assert_close(found, -slope, rtol=0, atol=1e-8 * float(slope.abs().max()) + 1e-11)


def test_many_probes_in_chunks_are_one_probe_at_a_time(pair, monkeypatch):
    mine, _ = pair
    data = batch_of(["CH3OH", "HCN", "H2O"], 5)
    together = mine(dict(data))["hessian_product"]
    monkeypatch.setattr(ways, "MAX_EDGES_PER_PASS", 40)
    mine.product_way = "copies"
    chunked = mine(dict(data))["hessian_product"]
    torch.testing.assert_close(chunked, together, rtol=0, atol=1e-13)
    for c in range(5):
        columns = slice(3 * c, 3 * c + 3)
        alone = mine({**data, "hessian_probe": data["hessian_probe"][:, columns].contiguous()})["hessian_product"]
        torch.testing.assert_close(together[:, columns], alone, rtol=0, atol=1e-13)


def test_zero_probes_give_zero_products_and_finite_gradients(pair):
    mine, _ = pair
    data = batch_of(["CH3OH", "HCN"], 3)
    first = data["batch"] == 0
    data["hessian_probe"][first] = 0.0
    out = mine(data)
    assert (out["hessian_product"][first] == 0).all()
    (out["hessian_product"] ** 2).sum().backward()
    gradients = [p.grad for p in mine.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


def test_few_probes_in_a_batch_cost_little_and_change_nothing(pair, monkeypatch):
    """Only frames that carry a probe go through the product, and no frame goes through the model twice for it."""
    mine, _ = pair
    mine.product_way = "copies"
    data = batch_of(["CH3OH", "HCN", "H2O", "CH4"], 2)
    sparse = data["hessian_probe"].clone()
    sparse[data["batch"] != 1] = 0.0
    dense = mine(dict(data))
    sizes = []
    product = HessianOutput.forward
    monkeypatch.setattr(
        HessianOutput,
        "forward",
        lambda self, d: (sizes.append(len(d["pos"]) if "hessian_probe" in d else 0), product(self, d))[1],
    )
    # labels stand in the data under the names of outputs, and must not come back as outputs
    labels = {
        "total_energy": torch.zeros(4, 1),
        "forces": torch.zeros_like(data["pos"]),
        "virial": torch.zeros(4, 3, 3),
    }
    found = mine({**data, **labels, "hessian_probe": sparse})
    assert sizes == [3, 0, 3]
    one = data["batch"] == 1
    torch.testing.assert_close(found["hessian_product"][one], dense["hessian_product"][one], rtol=0, atol=1e-13)
    assert (found["hessian_product"][~one] == 0).all()
    for key in ("total_energy", "forces", "atomic_energy", "virial", "edge_vectors", "pos", "batch"):
        torch.testing.assert_close(found[key], dense[key], rtol=0, atol=1e-13)
    mine({**data, "hessian_probe": 0 * sparse})["hessian_product"].sum().backward()


def gradients(model, data):
    model.zero_grad()
    out = model(dict(data))
    (out["hessian_product"] ** 2).sum().add((out["forces"] ** 2).sum() + out["total_energy"].sum()).backward()
    return out, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("keep_cell", [False, True])
def test_every_way_gives_the_same_products_and_gradients_in_any_memory(pair, keep_cell):
    """Loop and copies, with all graphs kept, some, or none: products made again have the gradient of kept ones."""
    mine, _ = pair
    data = batch_of(["Al4", "Al4"] if keep_cell else ["CH3OH", "HCN", "H2O"], 4, keep_cell)
    data["hessian_probe"][data["batch"] == 1, 3:] = 0.0
    mine.product_way, mine.product_memory = "copies", 1e12
    expected, theirs = gradients(mine, data)
    for way in ("loop", "copies"):
        for memory in (1e12, 3e6, 1.0):
            mine.product_way, mine.product_memory = way, memory
            found, ours_ = gradients(mine, data)
            for key in ("hessian_product", "forces", "total_energy"):
                torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-12)
            for one, two in zip(ours_, theirs, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-11)


def saved_bytes(model, data):
    """Bytes that autograd holds for the backward pass once the forward pass is over."""
    held = []

    def pack(tensor):
        held.append(weakref.ref(copy := tensor.detach()))
        return copy

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model(dict(data))
    alive = [tensor.untyped_storage() for reference in held if (tensor := reference()) is not None]
    del out
    return sum({storage.data_ptr(): storage.nbytes() for storage in alive}.values())


@pytest.mark.parametrize("way", ["loop", "copies"])
def test_graphs_of_products_keep_to_the_memory_given(pair, way):
    mine, _ = pair
    data = batch_of(["CH3OH", "HCN", "H2O"], 6)
    mine.product_way, mine.product_memory = way, 1e12
    kept = saved_bytes(mine, data)
    mine.product_memory = 1.0
    assert saved_bytes(mine, data) < 0.55 * kept
    # one product more costs no memory then
    wider = batch_of(["CH3OH", "HCN", "H2O"], 12)
    assert saved_bytes(mine, wider) < 1.1 * saved_bytes(mine, data)


def passes(monkeypatch, model, data):
    """Atoms in each forward pass."""
    calls = []
    with monkeypatch.context() as patch:
        forward = HessianOutput.forward
        patch.setattr(HessianOutput, "forward", lambda self, d: (calls.append(len(d["pos"])), forward(self, d))[1])
        out = model(dict(data))
    return calls, out


def test_frames_of_one_size_share_a_pass_and_what_is_done_is_left_out(pair, monkeypatch):
    mine, _ = pair
    mine(batch_of(["HCN"], 2))  # the first batch is also used to measure the graphs
    data = batch_of(["CH3OH", "HCN", "H2O"], 4)
    data["hessian_probe"][data["batch"] == 1, 3:] = 0.0
    data["hessian_probe"][data["batch"] == 2] = 0.0
    calls, together = passes(monkeypatch, mine, data)
    assert calls == [12], "calling a pass costs more than these few edges"
    monkeypatch.setattr(sizes, "_CALL", 0.0)
    calls, apart = passes(monkeypatch, mine, data)
    assert sorted(calls) == [3, 3, 6]
    for key in ("hessian_product", "forces", "total_energy", "atomic_energy", "virial", "edge_vectors"):
        torch.testing.assert_close(apart[key], together[key], rtol=0, atol=1e-12)
    assert (apart["hessian_product"][data["batch"] == 2] == 0).all()


@pytest.mark.parametrize("memory", [1e12, 1.0])
def test_groups_have_the_gradients_of_copies(pair, monkeypatch, memory):
    mine, _ = pair
    data = batch_of(["CH3OH", "HCN", "H2O"], 4)
    data["hessian_probe"][data["batch"] != 0, 6:] = 0.0
    mine.product_way, mine.product_memory = "copies", 1e12
    expected, theirs = gradients(mine, data)
    monkeypatch.setattr(sizes, "_CALL", 0.0)
    mine.product_way, mine.product_memory = "loop", memory
    found, ours_ = gradients(mine, data)
    torch.testing.assert_close(found["hessian_product"], expected["hessian_product"], rtol=0, atol=1e-12)
    for one, two in zip(ours_, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-11)


def test_where_not_even_one_product_of_a_group_fits_frames_go_through_alone(pair, monkeypatch):
    mine, _ = pair
    data = batch_of(["CH3OH", "HCN", "H2O"], 4)
    mine.product_way, mine.product_memory = "loop", 1e12
    expected, theirs = gradients(mine, data)
    assert passes(monkeypatch, mine, data)[0] == [12]
    mine.product_memory = 1.0
    calls, found = passes(monkeypatch, mine, data)
    assert calls == [6, 3, 3]
    for key in ("hessian_product", "forces", "total_energy"):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-12)
    for one, two in zip(gradients(mine, data)[1], theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-11)


def test_products_that_cannot_be_vectorised_are_made_one_by_one(pair, monkeypatch):
    mine, _ = pair
    data = batch_of(["CH3OH", "HCN"], 4)
    expected = mine(dict(data))["hessian_product"]
    gradient, refused = torch.autograd.grad, []

    def without_vmap(*args, is_grads_batched=False, **kwargs):
        if is_grads_batched:
            refused.append(True)
            raise RuntimeError("Batching rule not implemented")
        return gradient(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", without_vmap)
    found = mine(dict(data))["hessian_product"]
    assert refused
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_evaluation_leaves_nothing_behind(pair):
    mine, _ = pair
    mine.eval()
    data = batch_of(["CH3OH", "HCN"], 2)
    out = mine(data)
    assert not data["pos"].requires_grad
    assert data["hessian_probe"].shape[1] == 6
    assert not any(value.requires_grad for value in out.values())
    assert not any(module.training for module in mine.modules())


@pytest.mark.parametrize(
    "atoms",
    [ase.Atoms("H"), ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.8]]), ase.Atoms("CO2", [[0, 0, 0], [0, 0, 9], [0, 0, 10.1]])],
)
def test_one_atom_two_atoms_and_isolated_ones(pair, atoms):
    mine, _ = pair
    out = mine(with_probes(frame(atoms), 3))
    assert torch.isfinite(out["hessian_product"]).all()
    (out["hessian_product"] ** 2).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in mine.parameters() if p.grad is not None)
    (matrix,) = hessians(mine, frame(atoms))
    assert torch.isfinite(matrix).all()


def test_atoms_that_coincide_stop_the_training(pair):
    """Two atoms at one place have a direction of length zero: NaN in forces and products, which the loss names."""
    mine, _ = pair
    good, bad = (
        ase.Atoms("H2O", [[0, 0, 1], [0, 0, 0], [0.9, 0, 0]]),
        ase.Atoms("H2O", [[0, 0, 0], [0, 0, 0], [0.9, 0, 0]]),
    )
    data = AtomicDataDict.batched_from_list([with_probes(frame(atoms), 2) for atoms in (good, bad)])
    out = mine(dict(data))
    assert torch.isfinite(out["hessian_product"][:3]).all()
    label = {**data, "hessian_product": torch.zeros(6, 6), "hessian_weight": torch.ones(2, 1)}
    label["hessian_geometry"] = torch.tensor([[4], [17]])
    with pytest.raises(DivergedError, match=r"found nan for geometry 17\. Look at the geometry"):
        HessianMeanSquaredError()(out, label)


@pytest.mark.parametrize("kind", ["nequip", "allegro"])
def test_single_precision_gives_the_double_products_to_its_own(kind):
    builder, settings = {"nequip": (ours.NequIPGNNModel, NEQUIP), "allegro": (ours.AllegroModel, ALLEGRO)}[kind]
    exact, single = builder(**settings), builder(**{**settings, "model_dtype": "float32"})
    single.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in exact.state_dict().items()})
    data = batch_of(["CH3OH", "HCN", "H2O"], 2)
    data32 = {k: v.float() if v.is_floating_point() else v for k, v in data.items()}
    expected, theirs = gradients(exact, data)
    found, ours_ = gradients(single, data32)
    assert found["hessian_product"].dtype == torch.float32
    torch.testing.assert_close(found["hessian_product"].double(), expected["hessian_product"], rtol=1e-4, atol=1e-4)
    size = max(float(g.abs().max()) for g in theirs)
    for one, two in zip(ours_, theirs, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=0, atol=1e-4 * size)


def test_hessian_is_smooth_where_a_neighbour_leaves(pair):
    mine, _ = pair

    def matrix(distance):
        (found,) = hessians(mine, frame(ase.Atoms("H2O", [[0, 0, 0], [0.9, 0, 0], [0, 0, distance]])))
        return found

    jump = (matrix(4.0 + 1e-6) - matrix(4.0 - 1e-6)).abs().max()
    assert jump < 1e-4 * matrix(4.0 - 1e-6).abs().max()


def test_matrix_obeys_the_exact_identities(pair):
    from nequip_hessian.identities import rotation_fit, translation_residual

    mine, _ = pair
    atoms = rattled("CH3OH")
    (matrix,) = hessians(mine, frame(atoms))
    forces = mine(frame(atoms))["forces"].detach().numpy()
    assert translation_residual(matrix.numpy()) < 1e-12
    fit = rotation_fit(matrix.numpy(), atoms.positions, forces)
    assert fit.scale == pytest.approx(1.0, abs=1e-6)
    assert fit.residual < 1e-11


def test_a_wrong_width_is_an_error_not_a_wrong_number(pair):
    mine, _ = pair
    data = frame(rattled("H2O"))
    with pytest.raises(ValueError, match=r"\(N, 3K\)"):
        mine({**data, "hessian_probe": torch.zeros(3, 4)})
    with pytest.raises(ValueError, match="one probe"):
        mine.model({**data, "hessian_probe": torch.zeros(3, 6)})


def test_it_can_be_taken_off_again(pair):
    mine, _ = pair
    bare = HessianOutput.detach_HessianOutput(mine)
    assert type(bare.model) is ForceStressOutput
    assert list(bare.state_dict()) == list(mine.state_dict())


def compile_for_hessians(model, data):
    """What `nequip-compile --target hessian` does: the target's function sees `model` in its caller only."""
    return HESSIAN_TARGET["data_settings"](data)


def test_the_compile_target_gives_a_plain_model_its_product(pair):
    mine, theirs = pair
    theirs.eval()
    before = theirs(frame(rattled("HCN")))
    data = compile_for_hessians(theirs, frame(rattled("HCN")))
    found, expected = theirs(dict(data)), mine(dict(data))
    torch.testing.assert_close(found["hessian_product"], expected["hessian_product"], rtol=0, atol=1e-14)
    assert torch.equal(found["total_energy"], before["total_energy"])
    assert torch.equal(theirs(frame(rattled("HCN")))["forces"], before["forces"])
    assert list(theirs.state_dict()) == list(mine.state_dict())
    compile_for_hessians(mine, data)  # a model of ours stays as it is
    ensemble = PlainNequIP(**NEQUIP)
    ensemble.model = torch.nn.Sequential(ensemble.model)
    with pytest.raises(ConfigError, match="top module"):
        compile_for_hessians(ensemble, data)


def test_models_without_one_force_module_are_refused():
    with pytest.raises(ConfigError, match="do_derivatives"):
        ours.NequIPGNNModel(**NEQUIP, do_derivatives=False)
    with pytest.raises(ConfigError, match="ForceStressOutput, found Linear"):
        add_hessian_output(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="ModelFromPackage"):
        ours.HessianModel(model={"_target_": "nequip.model.NequIPGNNModel"})


def test_way_and_memory_of_a_configuration():
    model = ours.NequIPGNNModel(**NEQUIP, product_way="copies", product_memory_gb=0.5)
    assert (model.product_way, model.product_memory) == ("copies", 5e8)
    with pytest.raises(ConfigError, match="auto, loop, copies, found 'batched'"):
        ours.AllegroModel(**ALLEGRO, product_way="batched")
    with pytest.raises(ConfigError, match="above 0 in gigabytes, found 0"):
        ours.NequIPGNNModel(**NEQUIP, product_memory_gb=0)
    with pytest.raises(ConfigError, match="which a compiled graph cannot"):
        ours.NequIPGNNModel(**NEQUIP, product_way="loop", compile_mode="compile")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nequip", "allegro"])
def test_compiled_equals_eager_in_values_and_gradients(kind):
    builder, settings = {"nequip": (ours.NequIPGNNModel, NEQUIP), "allegro": (ours.AllegroModel, ALLEGRO)}[kind]
    eager, compiled = builder(**settings), builder(**settings, compile_mode="compile")
    traced = []
    for names, n_probes in ((["CH3OH", "HCN", "H2O"], 1), (["HCN", "CH4"], 4)):
        results = []
        for model in (eager, compiled):
            model.zero_grad()
            out = model(batch_of(names, n_probes))
            ((out["hessian_product"] ** 2).sum() + out["total_energy"].sum()).backward()
            results.append((out, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
        (out, gradients), (other, others) = results
        for key in ("total_energy", "forces", "hessian_product"):
            torch.testing.assert_close(out[key], other[key], rtol=0, atol=1e-11)
        assert len(gradients) == len(others)
        for one, two in zip(gradients, others, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)
        traced.append(len(compiled._compiled_cache[0]))
    assert traced == [1, 1], "one compiled graph serves any number of probes"
