import pytest
import torch

from riskpo_study.log_probs import token_scores


def plain(hidden, weight, targets, temperature):
    log_p = ((hidden @ weight.T) / temperature).log_softmax(-1)
    return log_p.gather(1, targets[:, None]).squeeze(1), -(log_p.exp() * log_p).sum(1)


@pytest.mark.parametrize("held", [1, 3 * 29, 7 * 13, 13 * 29, 2**20])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_equal_the_full_softmax(held, temperature):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(13, 8, generator=generator, requires_grad=True)
    weight = torch.randn(29, 8, generator=generator, requires_grad=True)
    targets = torch.randint(29, (13,), generator=generator)
    upstream = torch.randn(13, generator=generator)

    log_probs, entropies = token_scores(hidden, weight, targets, temperature, held)
    expected, expected_entropies = plain(hidden, weight, targets, temperature)
    torch.testing.assert_close(log_probs, expected)
    torch.testing.assert_close(entropies, expected_entropies)
    gradients = torch.autograd.grad((log_probs * upstream).sum(), (hidden, weight))
    for ours, theirs in zip(gradients, torch.autograd.grad((expected * upstream).sum(), (hidden, weight)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_tokens_have_no_gradient():
    hidden, weight = torch.zeros(0, 8, requires_grad=True), torch.randn(5, 8).requires_grad_()
    log_probs, _ = token_scores(hidden, weight, torch.zeros(0, dtype=torch.long))
    log_probs.sum().backward()
    assert hidden.grad.shape == (0, 8) and not weight.grad.any()


def test_the_softmax_of_a_half_precision_model_is_taken_in_float32():
    hidden, weight = torch.randn(5, 8).bfloat16(), torch.randn(11, 8).bfloat16()
    targets = torch.arange(5)
    log_probs, entropies = token_scores(hidden, weight, targets)
    assert log_probs.dtype == entropies.dtype == torch.float32
    expected = (hidden @ weight.T).float().log_softmax(-1)[torch.arange(5), targets]
    torch.testing.assert_close(log_probs, expected)


def test_gradients_of_a_half_precision_model_are_those_of_float32_up_to_its_rounding():
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(40, 16, generator=generator), torch.randn(60, 16, generator=generator)
    targets = torch.randint(60, (40,), generator=generator)
    gradients = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = [part.bfloat16().to(dtype).requires_grad_() for part in (hidden, weight)]
        token_scores(*inputs, targets, held=40 * 7)[0].sum().backward()
        gradients.append([part.grad for part in inputs])
    for ours, exact in zip(*gradients, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - exact).norm() < 0.02 * exact.norm()


def test_no_matrix_of_tokens_by_vocabulary_is_ever_held():
    """The largest tensor of the forward and backward pass is a chunk of logits, seen from the allocator."""
    tokens, vocabulary = 512, 4096
    hidden, weight = torch.randn(tokens, 4, requires_grad=True), torch.randn(vocabulary, 4, requires_grad=True)
    targets = torch.zeros(tokens, dtype=torch.long)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        token_scores(hidden, weight, targets, held=8 * vocabulary)[0].sum().backward()
    largest = max(event.self_cpu_memory_usage / max(event.count, 1) for event in profile.key_averages())
    assert largest < tokens * vocabulary * 4 / 8
