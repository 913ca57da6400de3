"""The weighted sum of separable convolutions against the modules that it stands for."""

import pytest
import torch
from torch import nn

from dots_zoo.kernels import SepConvBlock, sep_conv_block, sep_conv_sum
from dots_zoo.kernels.sep_conv import sep_conv_sum_backward, sep_conv_sum_operator, sep_conv_sum_reference
from dots_zoo.ops import OPS
from helpers.operators import LAST, assert_as_precise, assert_same, counted, draw, opcheck, threads

NAMES = ("sep_conv_5x5", "dil_conv_3x3", "sep_conv_3x3", "dil_conv_5x5")
READS = (0, 1, 0, 2)  # the map that each reads
SHAPES = [(3, 4, 5, 7), (2, 16, 8, 8), (1, 32, 9, 6), (2, 16, 1, 2)]


def modules(channels, stride=1, dtype=torch.double, names=NAMES, train=True):
    torch.manual_seed(0)
    built = nn.ModuleList([OPS[name](channels, stride, False) for name in names])
    for norm in built.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.3
    return built.to(dtype).train(train)


def blocks(operation):
    layers = [layer for layer in operation if not isinstance(layer, nn.ReLU)]
    return [SepConvBlock(*layers[at : at + 3]) for at in range(0, len(layers), 3)]


def by_kernel(operations, weights, maps, lean=False):
    return sep_conv_sum([blocks(one) for one in operations], weights, maps, lean)


def by_modules(operations, weights, maps, lean=False):
    return sum(w * one(x) for one, w, x in zip(operations, weights, maps, strict=True))


def results(function, shape, stride=1, lean=False, dtype=torch.double, layout=LAST, **changes):
    """Output, gradients, and statistics after two passes."""
    operations = modules(shape[1], stride, dtype, **changes)
    weights = torch.tensor([0.5, -2.0, 0.1, 1.0], dtype=dtype).requires_grad_()
    maps = [draw(*shape, dtype=dtype, seed=k, grad=False) * 2 + 1 for k in range(3)]
    maps = [x.contiguous(memory_format=layout).requires_grad_() for x in maps]
    for _ in range(2):
        out = function(list(operations), weights, [maps[k] for k in READS], lean)
    (out * draw(*out.shape, dtype=dtype, seed=7, grad=False)).sum().backward()
    gradients = [t.grad for t in (*operations.parameters(), *maps, weights)]
    return [out, *gradients, *(b.double() for b in operations.buffers())]


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_sum_of_the_modules(shape, stride, lean):
    """Output, every gradient and the running statistics, and it is loops that compute it."""
    with counted(sep_conv_block, "convolve_images", "block_backward", "norm_gradient") as calls:
        ours = results(by_kernel, shape, stride, lean)
    loops = {"convolve_images", "block_backward"} if shape[1] % 16 == 0 else {"norm_gradient"}
    assert set(calls) == loops
    assert_same(ours, results(by_modules, shape, stride))


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("changes", [{"layout": torch.contiguous_format}, {"train": False}])
def test_so_it_is_of_any_layout_and_by_running_statistics(shape, changes):
    assert_same(results(by_kernel, shape, **changes), results(by_modules, shape, **changes))


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_two_threads_change_rounding_alone(shape):
    one = results(by_kernel, shape)
    with threads(2):
        assert_same(results(by_kernel, shape), one, 1e-11)


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_what_is_computed_again_is_the_same_bit_by_bit(shape):
    for fast, lean in zip(results(by_kernel, shape), results(by_kernel, shape, lean=True), strict=True):
        assert torch.equal(fast, lean)


@pytest.mark.parametrize("shape", [(4, 4, 12, 12), (4, 16, 12, 12)])
def test_in_float32_the_error_is_that_of_the_reference(shape):
    exact = results(by_modules, shape)
    single = [results(f, shape, dtype=torch.float) for f in (by_kernel, by_modules)]
    assert all(x.dtype in (torch.float, torch.double) for x in single[0])
    assert_as_precise(*single, exact)


def test_far_from_zero_the_variance_keeps_its_digits():
    """A variance of E[y^2] - E[y]^2 would lose what is asked for here."""
    x, errors = draw(8, 16, 16, 16, dtype=torch.float, seed=1, grad=False) * 0.01 + 10, {}
    truth = by_modules(list(modules(16)), torch.ones(4).double(), [x.double()] * 4)
    for name, function in (("ours", by_kernel), ("torch", by_modules)):
        out = function(list(modules(16, dtype=torch.float)), torch.ones(4), [x] * 4)
        errors[name] = (out.double() - truth).abs().max().item()
    assert errors["ours"] < 2 * errors["torch"] < 0.1


@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_finite_differences(channels, stride):
    """On the float64 build of the loops, of two of the channels of everything."""
    operations = modules(channels, stride, names=("sep_conv_3x3", "dil_conv_3x3"))
    weights = torch.tensor([0.5, -2.0]).double().requires_grad_()
    base, few = draw(2, channels, 3, 4, grad=False), draw(2, 2, 3, 4)

    def function(weights, few):
        x = torch.cat([few, base[:, 2:]], dim=1).contiguous(memory_format=LAST)
        return by_kernel(list(operations), weights, [x, x])

    with counted(sep_conv_block, "convolve_images", "block_backward", "norm_gradient") as calls:
        assert torch.autograd.gradcheck(function, (weights, few))
    assert calls.count("block_backward" if channels == 16 else "norm_gradient") >= 3


def arguments(channels, dtype, keep):
    operations = modules(channels, dtype=dtype, names=("sep_conv_3x3", "dil_conv_5x5"))
    layers = [layer for one in operations for block in blocks(one) for layer in block[:2]]
    parameters = [layer.weight.detach().requires_grad_() for layer in layers]
    plan = [0, 1, 1, 1, -1, 1, 1, 1, 1, 1, 4, 2]
    maps = [draw(2, channels, 5, 6, dtype=dtype, seed=k) for k in range(2)]
    weights = torch.tensor([0.5, -2.0], dtype=dtype).requires_grad_()
    return weights, maps, parameters, plan, [1e-5] * 3, keep


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("keep", [0, 2])
def test_the_operators_keep_their_contract(dtype, keep):
    inputs = arguments(16, dtype, keep)
    opcheck(sep_conv_sum_operator, inputs)
    with torch.no_grad():
        out, _, inverses, kept = sep_conv_sum_operator(*inputs)
        backward = torch.ones_like(out), *inputs[:4], inverses, kept, [True, True, False]
        opcheck(sep_conv_sum_backward, backward, test_utils=("test_schema", "test_faketensor"))


def test_statistics_move_only_where_they_are_kept():
    operations = modules(4, dtype=torch.float)
    for module in operations.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = module.num_batches_tracked = None
    out = by_kernel(list(operations), torch.ones(4), [draw(2, 4, 3, 3, dtype=torch.float)] * 4)
    assert out.isfinite().all() and not [b for b in operations.buffers() if b is not None]


def test_a_norm_with_scales_and_shifts_and_a_convolution_with_a_bias_go_through_torch():
    torch.manual_seed(0)
    block = SepConvBlock(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
    nn.init.normal_(block.norm.weight), nn.init.normal_(block.norm.bias)
    x, weights = draw(2, 16, 4, 4, dtype=torch.float), torch.tensor([2.0])
    found = sep_conv_sum([[block]], weights, [x], False)
    torch.testing.assert_close(found, sep_conv_sum_reference([[block]], weights, [x]))


@pytest.mark.parametrize("into, stride", [(32, 1), (16, 2)])
def test_a_block_that_changes_channels_or_a_second_one_that_changes_sides_goes_through_torch(into, stride):
    def block(channels, into, stride):
        depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        return SepConvBlock(
            depthwise, nn.Conv2d(channels, into, 1, bias=False), nn.BatchNorm2d(into, affine=False)
        )

    torch.manual_seed(0)
    candidate = [block(16, into, 1), block(into, into, stride)]
    x, weights = draw(2, 16, 4, 4, dtype=torch.float), torch.tensor([2.0])
    out = sep_conv_sum([candidate], weights, [x], False)
    torch.testing.assert_close(out, sep_conv_sum_reference([candidate], weights, [x]))


def test_what_is_kept_is_what_a_gradient_reads():
    """Of four candidates with six blocks: maps, and x and y of every block, or y alone, or nothing."""
    kept, maps = {}, [draw(2, 16, 8, 8, dtype=torch.float, seed=k) for k in range(4)]
    for lean, wanted in ((False, True), (False, False), (True, True)):
        operations = modules(16, dtype=torch.float).requires_grad_(wanted)
        seen = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, seen=seen: seen.setdefault(t.data_ptr(), t), lambda t: t
        ):
            by_kernel(list(operations), torch.ones(4).requires_grad_(), maps, lean)
        sizes = [t.numel() for t in seen.values()]
        kept[lean, wanted] = sum(size for size in sizes if size >= maps[0].numel()) // maps[0].numel()
    assert kept == {(False, True): 4 + 2 * 6, (False, False): 4 + 6, (True, True): 4}


def test_nan_is_not_hidden_by_a_relu():
    x = draw(1, 16, 4, 4, dtype=torch.float, grad=False).fill_(float("nan"))
    assert by_kernel(list(modules(16, dtype=torch.float)), torch.ones(4), [x] * 4).isnan().all()


def test_where_there_are_no_loops_torch_computes_it():
    """On another device and in bfloat16, as without numba."""
    for place in ({"device": "meta"}, {"dtype": torch.bfloat16}):
        operations = modules(16, dtype=torch.float).to(**place)
        x = draw(2, 16, 6, 6, dtype=torch.float, grad=False).to(**place).requires_grad_()
        weights = torch.ones(4).to(**place).requires_grad_()
        out = by_kernel(list(operations), weights, [x] * 4, True)
        out.float().sum().backward()
        assert out.device.type == x.device.type and out.dtype == x.dtype and x.grad is not None
