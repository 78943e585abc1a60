"""Target codecs: inverse on admissible fields, guarantees on any numbers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import ndtri

from st_cdgm.data.fit.codecs.amounts import MAX_PRECIPITATION
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.fit.codecs.function import FunctionCodec
from st_cdgm.data.fit.codecs.logarithm import transform_codecs
from st_cdgm.data.fit.codecs.quantile_map import AmountCounts
from st_cdgm.data.fit.codecs.target import TargetCodec
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.table import temperature_rank
from st_cdgm.errors import ConfigError, InputError, OutputError

PR = TargetVariable(name="pr", units="mm day-1")
TASMIN = TargetVariable(name="tasmin", units="degC")
TAS = TargetVariable(name="tas", units="degC")
TASMAX = TargetVariable(name="tasmax", units="degC")
WIND = TargetVariable(name="sfcWind", units="m s-1")
TRANSFORMS = ["sqrt", "log1p", "identity"]
EVERY = [*TRANSFORMS, "quantile"]

any_float = hnp.arrays(
    np.float32,
    (4, 3, 2),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
amounts = hnp.arrays(
    np.float32,
    (1, 3, 2),
    elements=st.one_of(st.just(0.0), st.floats(0.125, 1500, width=32)),
)
temperatures = hnp.arrays(np.float32, (1, 3, 2), elements=st.floats(-60, 55, width=32))
steps = hnp.arrays(np.float32, (2, 3, 2), elements=st.floats(0.03125, 45, width=32))


def _rain(shape, seed=0):
    """Dry on 60 % of the days; wet amounts rounded to 0.1 mm, as gauges give them."""
    rng = np.random.default_rng(seed)
    wet = np.round(rng.gamma(0.7, 8.0, shape), 1)
    return np.where(rng.random(shape) < 0.6, 0.0, wet).astype(np.float32)


def _build(targets, transform="sqrt", **options):
    """Build a codec; quantiles are fitted to the same rain in every channel."""

    def blocks():
        for seed in range(3):
            rain = _rain((200, 1, 5, 6), seed)
            yield None, None, np.repeat(rain, len(targets), axis=1)

    return build_codec(targets, precipitation=transform, blocks=blocks, **options)


def _codec(transform="sqrt", **options):
    # The channel order is on purpose not the order of the temperatures.
    return _build((TASMAX, PR, TASMIN, TAS), transform, **options)


@pytest.mark.parametrize("transform", EVERY)
@given(cold=temperatures, rise=steps, pr=amounts)
@settings(max_examples=30, deadline=None)
def test_decode_inverts_encode_on_admissible_fields(transform, cold, rise, pr):
    tas, tasmax = cold + rise[:1], cold + rise[:1] + rise[1:]
    fields = torch.from_numpy(np.concatenate([tasmax, pr, cold, tas]))
    codec = _codec(transform)
    back = codec.decode(codec.encode(fields))
    assert torch.allclose(back, fields, rtol=3e-5, atol=3e-5)
    assert torch.equal(back[1] == 0, fields[1] == 0)


@pytest.mark.parametrize("transform", EVERY)
@given(encoded=any_float)
@settings(max_examples=50, deadline=None)
def test_any_numbers_decode_to_ordered_temperatures_and_rain_with_exact_zeros(
    transform, encoded
):
    tasmax, pr, tasmin, tas = _codec(transform).decode(torch.from_numpy(encoded))
    assert (tasmin <= tas).all()
    assert (tas <= tasmax).all()
    assert ((pr == 0) | (pr >= np.float32(0.1))).all()
    assert torch.isfinite(pr).all()


@pytest.mark.parametrize("transform", EVERY)
@given(encoded=hnp.arrays(np.float32, (4, 3, 2), elements=st.floats(-9, 9, width=32)))
@settings(max_examples=30, deadline=None)
def test_encode_inverts_decode_where_it_is_wet_and_steps_are_not_tiny(
    transform, encoded
):
    encoded[[0, 3]] = np.maximum(encoded[[0, 3]], -2)
    codec = _codec(transform)
    u = torch.from_numpy(encoded)
    again = codec.encode(codec.decode(u))
    assert torch.allclose(again[[0, 2, 3]], u[[0, 2, 3]], atol=2e-3)
    wet = codec.decode(u)[1] > 0.11
    assert torch.allclose(again[1][wet], u[1][wet], atol=2e-3)


def test_temperature_triple_by_hand():
    codec = build_codec((TASMIN, TAS, TASMAX))
    # softplus(log(e^y - 1)) = y
    fields = torch.tensor([3.0, 5.0, 5.5]).reshape(3, 1, 1)
    encoded = codec.encode(fields).flatten().tolist()
    expected = [3.0, math.log(math.expm1(2.0)), math.log(math.expm1(0.5))]
    assert encoded == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("transform", "encoded"),
    [("sqrt", 3.0), ("log1p", math.log(901)), ("identity", 9.0)],
)
def test_precipitation_by_hand(transform, encoded):
    codec = build_codec((PR,), precipitation=transform)
    field = torch.full((1, 1, 1), 9.0)
    assert codec.encode(field).item() == pytest.approx(encoded, rel=1e-6)
    assert codec.decode(codec.encode(field)).item() == pytest.approx(9.0, rel=1e-6)


@pytest.mark.parametrize("transform", EVERY)
def test_amounts_at_the_wet_threshold_stay_wet_and_lesser_ones_are_dry(transform):
    codec = _build((PR,), transform, wet_threshold=0.1)
    field = torch.tensor([-1e-9, 0.0, 0.05, 0.1, 0.11]).reshape(1, 5, 1)
    encoded = codec.encode(field)
    # What standardising and its inverse do to a number in float32.
    rounded = (encoded - 0.123) / 0.77 * 0.77 + 0.123
    decoded = codec.decode(rounded).flatten()
    assert decoded[:3].tolist() == [0.0, 0.0, 0.0]
    assert decoded[3:].numpy() == pytest.approx([0.1, 0.11], rel=1e-5)


def test_a_threshold_of_zero_still_gives_exact_zeros():
    codec = build_codec((PR,), wet_threshold=0.0)
    u = torch.tensor([-2.0, 0.0, 0.5]).reshape(1, 3, 1)
    assert codec.decode(u).flatten().tolist() == [0.0, 0.0, 0.25]
    assert torch.isfinite(codec.scored(u)).all()
    codec = _build((PR,), "quantile", wet_threshold=0.0)
    field = torch.tensor([0.0, 0.01, 3.0]).reshape(1, 3, 1)
    back = codec.decode(codec.encode(field))
    assert back.flatten().tolist() == pytest.approx([0.0, 0.01, 3.0], rel=1e-4)
    assert back[0, 0, 0] == 0
    assert torch.isfinite(codec.scored(codec.encode(field))).all()


def test_observed_tasmax_below_tasmin_is_floored_and_never_fails():
    codec = build_codec((TASMIN, TASMAX))
    fields = torch.tensor([4.0, 3.2]).reshape(2, 1, 1)
    encoded = codec.encode(fields)
    assert torch.isfinite(encoded).all()
    assert codec.decode(encoded).flatten().tolist() == pytest.approx([4.0, 4.01])


@pytest.mark.parametrize("transform", EVERY)
def test_nan_stays_nan_in_its_own_channel(transform):
    fields = torch.tensor([[20.0, 20.0], [1.0, math.nan], [9.0, 9.0], [12.0, 12.0]])
    codec = _codec(transform)
    fields = fields[:, :, None]
    encoded = codec.encode(fields)
    assert torch.equal(encoded.isnan(), fields.isnan())
    assert torch.equal(codec.decode(encoded).isnan(), fields.isnan())
    assert torch.equal(codec.scored(encoded).isnan(), fields.isnan())


def test_nan_in_the_colder_temperature_hides_the_increment_only_upwards():
    codec = build_codec((TASMIN, TAS, TASMAX))
    fields = torch.tensor([1.0, math.nan, 9.0]).reshape(3, 1, 1)
    assert codec.encode(fields).flatten().isnan().tolist() == [False, True, True]


def test_leading_axes_and_other_variables_pass():
    codec = build_codec((WIND, PR))
    fields = torch.rand(2, 3, 5, 2, 4, 6) + 0.2
    decoded = codec.decode(codec.encode(fields))
    assert decoded.shape == fields.shape
    assert torch.equal(decoded[..., 0, :, :], fields[..., 0, :, :])


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_scored_is_the_root_of_rain_and_nearly_flat_where_dry(transform):
    codec = build_codec((PR, TASMIN), precipitation=transform)
    amounts_mm = torch.tensor([0.1, 0.5, 30.0])
    fields = torch.stack([amounts_mm, torch.full((3,), 4.0)])[..., None]
    scored = codec.scored(codec.encode(fields))
    assert torch.allclose(scored[0, :, 0], amounts_mm.sqrt(), rtol=1e-4)
    assert torch.equal(scored[1], fields[1])
    edge = codec.encode(fields)[0, 0, 0].item()
    near = torch.tensor([edge - 0.02, edge - 0.01, edge, edge + 0.01])
    values = codec.scored(torch.stack([near, near])[..., None])[0, :, 0].double()
    slopes = (values.diff() / 0.01).tolist()
    assert slopes[0] == pytest.approx(slopes[1], rel=0.02)
    assert slopes[1] == pytest.approx(0.1 * slopes[2], rel=0.15)


@pytest.mark.parametrize("transform", EVERY)
def test_scored_has_a_finite_gradient_everywhere_also_where_it_is_dry(transform):
    encoded = torch.linspace(-30, 30, 400).reshape(4, 10, 10).requires_grad_()
    codec = _codec(transform)
    codec.scored(encoded).sum().backward()
    assert torch.isfinite(encoded.grad).all()
    assert (encoded.grad[1][encoded[1] < 0] > 0).all()


@pytest.mark.parametrize("transform", EVERY)
def test_decode_has_a_finite_gradient(transform):
    encoded = torch.linspace(-30, 60, 400).reshape(4, 10, 10).requires_grad_()
    _codec(transform).decode(encoded).sum().backward()
    assert torch.isfinite(encoded.grad).all()


def test_half_precision_is_widened():
    codec = build_codec((TASMIN, TASMAX))
    encoded = torch.tensor([15.03, -3.0], dtype=torch.bfloat16).reshape(2, 1, 1)
    decoded = codec.decode(encoded)
    assert decoded.dtype == torch.float32
    assert decoded[1] > decoded[0]


def test_rain_has_a_ceiling_so_that_log1p_does_not_blow_up():
    codec = build_codec((PR,), precipitation="log1p")
    decoded = codec.decode(torch.full((1, 1, 1), 200.0))
    assert decoded.item() == pytest.approx(MAX_PRECIPITATION, rel=1e-5)


def test_state_is_json_and_rebuilds_the_codec():
    codec = _codec("log1p", precipitation_delta=0.02, wet_threshold=0.5)
    assert TargetCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec


@pytest.mark.parametrize("transform", EVERY)
def test_a_codec_of_former_checkpoints_is_read(transform):
    codec = _build((TASMAX, PR, TASMIN, WIND), transform, precipitation_delta=0.02)
    state = {
        "names": ["tasmax", "pr", "tasmin", "sfcWind"],
        "ordered": [2, 0],
        "precipitation": [1],
        "transform": transform,
        "delta": 0.02,
        "wet_threshold": 0.1,
    }
    if transform == "quantile":
        (maps,) = (p.codec.maps for p in codec.parts if p.channels == (1,))
        state["quantiles"] = [asdict(one) for one in maps]
    assert TargetCodec.from_dict(json.loads(json.dumps(state))) == codec


def test_guarantees_are_said_in_words():
    assert _codec().guarantees() == [
        "tasmin <= tas <= tasmax",
        "pr >= 0, exactly 0 below 0.1 mm day-1",
    ]
    assert build_codec((WIND,)).guarantees() == []


@pytest.mark.parametrize(
    ("name", "standard_name", "cell_methods", "rank"),
    [
        ("tasmin", None, None, 0),
        ("tx", None, None, 2),
        ("t2m", "air_temperature", "time: mean", 1),
        ("t2m_low", "air_temperature", "area: mean time: minimum", 0),
        ("t2m_low", "air_temperature", "time: minimum", 0),
        ("t2m", "air_temperature", None, 1),
        ("t2m", "air_temperature", "time: maximum", 2),
        ("x", "air_temperature", None, None),
        ("sfcWind", "wind_speed", "time: maximum", None),
    ],
)
def test_temperatures_are_known_by_name_or_by_cf_attributes(
    name, standard_name, cell_methods, rank
):
    target = TargetVariable(
        name=name, units="degC", standard_name=standard_name, cell_methods=cell_methods
    )
    assert temperature_rank(target) == rank


def test_temperatures_of_different_units_are_not_ordered():
    kelvin = TargetVariable(name="tasmax", units="K")
    assert build_codec((TASMIN, kelvin)).ordered == ()


def test_precipitation_is_known_by_its_standard_name():
    odd = TargetVariable(name="x", units="mm", standard_name="precipitation_flux")
    assert build_codec((odd,)).nonnegative == (0,)


@pytest.mark.parametrize(
    "options",
    [
        {"precipitation": "cube"},
        {"precipitation": "quantile"},
        {"precipitation_delta": 0.0},
        {"precipitation_delta": math.nan},
        {"wet_threshold": -0.1},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        build_codec((PR,), **options)


def test_functions_on_data_sets_encode_and_decode_but_cannot_be_saved():
    codec = FunctionCodec(
        names=("pr", "x"), forward=lambda d: d * 2, inverse=lambda d: d / 2
    )
    fields = torch.rand(3, 5, 2, 4, 6)
    assert torch.equal(codec.encode(fields), fields * 2)
    assert torch.equal(codec.decode(codec.encode(fields)), fields)
    with pytest.raises(OutputError, match="cannot be saved"):
        codec.to_dict()


def test_a_transform_that_gives_no_data_set_is_a_type_error():
    codec = FunctionCodec(names=("pr",), forward=lambda d: d["pr"], inverse=lambda d: d)
    with pytest.raises(TypeError, match="DataArray"):
        codec.encode(torch.rand(1, 2, 2))
    assert isinstance(codec.inverse(xr.Dataset()), xr.Dataset)


# -- Quantiles -------------------------------------------------------------------------


def _fit(amounts, threshold=0.1):
    counts = AmountCounts(threshold, MAX_PRECIPITATION)
    counts.add(np.asarray(amounts, np.float32))
    return counts.fit("pr")


def test_scores_of_training_rain_are_those_of_a_normal_distribution():
    rng = np.random.default_rng(1)
    rain = rng.gamma(0.7, 8.0, 60_000).astype(np.float32)
    rain[rng.random(len(rain)) < 0.6] = 0
    share = float((rain < 0.1).mean())
    scores = _fit(rain).encode(torch.from_numpy(rain)).numpy()
    wet = rain >= 0.1
    # Above the dry share, the scores' distribution is the normal one.
    levels = np.array([share + 0.02, 0.75, 0.9, 0.99, 0.999])
    assert np.quantile(scores, levels) == pytest.approx(ndtri(levels), abs=0.02)
    assert (np.diff(scores[wet][np.argsort(rain[wet])]) >= 0).all()
    # Mean of a standard normal below its quantile z: -phi(z) / Phi(z).
    z = ndtri(share)
    dry = -math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / share
    assert scores[~wet] == pytest.approx(dry, abs=1e-6)
    assert scores.mean() == pytest.approx(0, abs=0.01)


def test_quantiles_of_an_exponential_are_the_closed_form():
    rng = np.random.default_rng(2)
    made = _fit(rng.exponential(5.0, 400_000).clip(0.1, None), threshold=0.1)
    amounts_mm = torch.tensor([1.0, 4.0, 10.0, 30.0])
    expected = ndtri(1 - np.exp(-amounts_mm.numpy() / 5.0))
    # Three standard errors at 30 mm, which 1 000 of the values exceed.
    assert made.encode(amounts_mm).numpy() == pytest.approx(expected, abs=0.03)


def test_the_tail_beyond_the_quantiles_is_linear_in_the_root_and_does_not_blow_up():
    rain = _rain((40_000,))
    made = _fit(rain)
    assert len(made.roots) <= 200
    last = made.scores[-2]
    u = torch.tensor([last, last + 1, last + 2, last + 3])
    steps = made.root(u).diff()
    assert torch.allclose(steps, steps[:1].expand(3), rtol=1e-4)
    before = made.root(torch.tensor(last)) - made.root(torch.tensor(last - 1))
    assert steps[0] == pytest.approx(before.item(), rel=1e-3)
    codec = _build((PR,), "quantile")
    far = codec.decode(torch.tensor([[[6.0, 1e6]]])).flatten().tolist()
    # A score of 6 comes once in 1e9 values.
    assert far[0] < 6 * rain.max()
    assert far[1] == pytest.approx(MAX_PRECIPITATION, rel=1e-5)


def test_quantiles_do_not_depend_on_the_blocks_and_ignore_missing_values():
    rain = _rain((500, 7))
    rain[:, 0] = math.nan
    rain[3, 1] = math.inf
    whole = _fit(rain)
    counts = AmountCounts(0.1, MAX_PRECIPITATION)
    for part in np.array_split(rain, 9):
        counts.add(part)
    assert counts.fit("pr") == whole


@pytest.mark.parametrize("amount", [5.0, 0.1])
def test_rain_that_never_or_always_falls_alike_still_has_a_map(amount):
    made = _fit(np.full(1000, amount))
    back = made.root(made.encode(torch.tensor([amount]))).square()
    assert back.item() == pytest.approx(amount, rel=1e-3)
    assert made.dry < made.scores[0] < made.scores[1]
    assert all(np.diff(made.roots) > 0)


def test_too_few_wet_values_are_refused_with_the_variable():
    rain = np.zeros(5000)
    rain[:50] = 3
    with pytest.raises(InputError, match="50 of 5000") as error:
        _fit(rain)
    assert "pr" in str(error.value)


def test_scored_quantiles_are_the_root_and_nearly_flat_where_dry():
    codec = _build((PR,), "quantile")
    amounts_mm = torch.tensor([0.1, 0.5, 30.0, 400.0]).reshape(1, 4, 1)
    scored = codec.scored(codec.encode(amounts_mm))
    assert torch.allclose(scored, amounts_mm.sqrt(), rtol=1e-3)
    first = codec.parts[0].codec.maps[0].scores[0]
    u = torch.tensor([first - 0.2, first - 0.1, first]).reshape(1, 3, 1)
    steps = codec.scored(u).flatten().diff()
    assert (steps > 0).all()
    assert torch.allclose(steps, steps[:1].expand(2), rtol=1e-3)


def test_two_rain_targets_have_maps_of_their_own():
    other = TargetVariable(name="snow", units="mm day-1", standard_name="rainfall_rate")

    def blocks():
        rain = _rain((400, 1, 5, 6))
        yield None, None, np.concatenate([rain, 10 * rain], axis=1)

    codec = build_codec((PR, other), precipitation="quantile", blocks=blocks)
    u = torch.full((2, 1, 1), 2.0)
    decoded = codec.decode(u).flatten()
    assert decoded[1] == pytest.approx(10 * decoded[0].item(), rel=0.02)
    assert codec != _build((PR, other), "quantile")
    again = TargetCodec.from_dict(json.loads(json.dumps(codec.to_dict())))
    assert torch.equal(again.decode(u), codec.decode(u))


def test_training_days_are_read_only_for_quantiles():
    def blocks():
        raise AssertionError("read")

    build_codec((PR,), precipitation="sqrt", blocks=blocks)
    build_codec((WIND,), precipitation="quantile", blocks=blocks)


# -- Logarithms of the targets they are asked for --------------------------------------

RAIN, WARM = PR, TASMAX


def transformed(targets, transform, *, truth=None, epsilon=1e-3, **options):
    chosen = transform_codecs(targets, transform, epsilon=epsilon)
    blocks = None if truth is None else lambda: iter([(None, None, truth)])
    return build_codec(targets, transforms=chosen, blocks=blocks, **options)


@pytest.mark.parametrize(("name", "delta"), [("log", 1e-3), ("log1p", 1.0)])
def test_a_transform_acts_on_the_target_it_is_given_for(name, delta):
    """It acted on precipitation alone, and on nothing where there was none."""
    fields = torch.tensor([0.0, 0.5, 12.0]).reshape(1, 1, 3)
    codec = transformed([WIND], {"sfcWind": name})
    expected = torch.log(fields + delta)
    torch.testing.assert_close(codec.encode(fields), expected)
    torch.testing.assert_close(codec.decode(expected), fields, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(codec.scored(expected), expected)
    # What the model makes of it is finite and not negative.
    wild = codec.decode(torch.tensor([-1e4, 1e4]).reshape(1, 1, 2))
    assert torch.isfinite(wild).all()
    assert (wild >= 0).all()
    assert TargetCodec.from_dict(codec.to_dict()) == codec


def test_every_target_may_have_a_transform_of_its_own():
    targets = [RAIN, WIND, WARM]
    fields = torch.tensor([2.0, 3.0, -4.0]).reshape(3, 1, 1)
    codec = transformed(targets, {"pr": "log1p", "sfcWind": "log", "tasmax": None})
    encoded = codec.encode(fields).ravel().tolist()
    assert encoded == pytest.approx([np.log(3.0), np.log(3.001), -4.0], rel=1e-5)
    assert codec.chosen["pr"] == "log1p"  # with exact zeros on dry days
    both = transformed([RAIN, WIND], {"pr": "log1p", "sfcWind": "log1p"})
    assert both.encode(fields[:2]).ravel().tolist() == pytest.approx(
        np.log([3.0, 4.0]), rel=1e-5
    )


def test_a_transform_named_alone_says_what_it_leaves_out(caplog):
    codec = transformed([RAIN, WIND, WARM], "log1p")
    assert codec.chosen == {"pr": "log1p", "sfcWind": "log", "tasmax": "identity"}
    assert "acts on pr, sfcWind alone: tasmax can be negative" in caplog.text


@pytest.mark.parametrize(
    ("targets", "transform", "options", "words"),
    [
        ([WARM], "log", {}, "has a meaning for none"),
        ([RAIN], "cube", {}, "unknown target transform"),
        ([RAIN], {"pr": "cube"}, {}, "unknown target transform"),
        ([RAIN], {"tas": "log"}, {}, "what is no target"),
        ([RAIN], {"pr": "log"}, {"codecs": {"pr": "sqrt"}}, "a codec and a transform"),
        ([RAIN], "log", {"epsilon": 0.0}, "transform_epsilon is out of range"),
        (
            [WIND, WARM],
            {"tasmax": "log"},
            {"truth": np.full((2, 2, 1, 1), -3.0)},
            r"(?s)negative values.*tasmax",
        ),
    ],
)
def test_a_transform_is_never_ignored(targets, transform, options, words):
    with pytest.raises(ConfigError, match=words):
        transformed(targets, transform, **options)
