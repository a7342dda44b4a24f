"""Against Hugging Face's own module: what comes in and what goes out gives its outputs.

Its module reads a memory of zeros as real states where ours has none yet, so both are given the same full memory. The
version that installs beside this project's tokenizers still calls `Tensor.type_as(dtype=…)`, which torch refuses: the
fixture lets it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import BASE, SYMBOLS, built
from torch import Tensor

from txlplan.engine import checkpoint
from txlplan.interchange import export_model, import_model
from txlplan.model import ModelConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
VARIANTS = {
    "full-softmax": BASE,
    "pre-norm-own-biases-clamped": replace(BASE, norm="pre", untie_r=True, clamp_len=5),
    "adaptive": replace(BASE, cutoffs=(10, 20), div_val=2, tie_projections=(False, True, True), same_length=True),
    "adaptive-one-width": replace(BASE, cutoffs=(10, 20), d_embed=8, tie_projections=(False, True, True)),
    "nothing-tied": replace(BASE, cutoffs=(10,), div_val=2, tie_weights=False, tie_projections=(False, False)),
}


@pytest.fixture(autouse=True, scope="module")
def hugging_face() -> Any:
    """Its module, importable and callable."""
    plain = Tensor.type_as

    def type_as(self: Tensor, other: Tensor | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
        return self.to(dtype) if other is None else plain(self, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(Tensor, "type_as", type_as)
        yield


def theirs_of(directory: Path) -> Any:
    from transformers import TransfoXLLMHeadModel

    module, info = TransfoXLLMHeadModel.from_pretrained(directory, output_loading_info=True)
    assert info["missing_keys"] == []
    assert info["unexpected_keys"] == []
    assert info["mismatched_keys"] == []
    return module.eval()


def new_theirs(config: ModelConfig) -> Any:
    """Their module with random weights, made by their own configuration class."""
    from transformers import TransfoXLConfig, TransfoXLLMHeadModel

    torch.manual_seed(1)
    module = TransfoXLLMHeadModel(
        TransfoXLConfig(
            vocab_size=config.vocab_size,
            cutoffs=list(config.cutoffs),
            d_model=config.d_model,
            d_embed=config.embed_width,
            n_head=config.n_head,
            d_head=config.d_head,
            d_inner=config.d_inner,
            div_val=config.div_val,
            pre_lnorm=config.norm == "pre",
            n_layer=config.n_layer,
            mem_len=config.mem_len,
            clamp_len=config.clamp_len or -1,
            same_length=config.same_length,
            untie_r=config.untie_r,
            proj_share_all_but_first=any(config.tie_projections),
            tie_word_embeddings=config.tie_weights,
        )
    ).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def assert_equal_outputs(ours: Any, theirs: Any) -> None:
    """Log-probabilities and memory over two segments, from the same full memory."""
    config = ours.config
    memory = torch.randn(config.n_layer, 2, config.mem_len, config.d_model)
    mems = [layer.transpose(0, 1) for layer in memory]
    full = torch.tensor(config.mem_len)
    for seed in range(2):
        tokens = torch.randint(0, config.vocab_size, (2, 6), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            hidden, memory = ours(tokens, memory, full)
            log = ours.log_probabilities(hidden.flatten(0, 1)).view(2, 6, -1)
            expected = theirs(tokens, mems=mems)
        mems = expected.mems
        torch.testing.assert_close(log, expected.prediction_scores, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(memory, torch.stack(list(mems)).transpose(1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_their_model_comes_in_and_gives_their_outputs(variant: str, tmp_path: Path) -> None:
    """Safetensors from the variant with biases of its own; from the others, whose biases it cannot save so, a torch file."""
    theirs = new_theirs(VARIANTS[variant])
    theirs.save_pretrained(tmp_path / "theirs", safe_serialization=VARIANTS[variant].untie_r)
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join(SYMBOLS) + "\n")
    imported = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert imported.layout == "hugging-face"
    assert_equal_outputs(checkpoint.load_model(checkpoint.locate(tmp_path / "ours")), theirs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_model_goes_out_and_comes_back(variant: str, tmp_path: Path) -> None:
    ours = built(VARIANTS[variant])
    checkpoint.save_weights(tmp_path / "run", ours.config, ours.state_dict())
    export_model(tmp_path / "run", tmp_path / "theirs", "hf")
    assert_equal_outputs(ours, theirs_of(tmp_path / "theirs"))
    (tmp_path / "theirs" / "vocab.txt").write_text("\n".join(SYMBOLS) + "\n")
    import_model(tmp_path / "theirs", tmp_path / "back")
    back = checkpoint.load_model(checkpoint.locate(tmp_path / "back"))
    assert back.config == replace(
        ours.config, id="theirs", d_embed=ours.config.embed_width, tie_projections=back.config.tie_projections
    )
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in ours.state_dict().items())
