"""Hugging Face folders, of models built from configurations with random weights."""

from __future__ import annotations

import numpy as np
import pytest

from dnnsplit_onnx import Link, Tier, Topology, analyse, plan, slice_model, verify
from dnnsplit_onnx.converters.conversion import Options
from dnnsplit_onnx.converters.loading import convert_here
from dnnsplit_onnx.converters.parity import OnnxRun
from dnnsplit_onnx.converters.routes import Route
from dnnsplit_onnx.converters.sources import parse_source
from dnnsplit_onnx.errors import InputError
from dnnsplit_onnx.graph.graph import load_graph
from dnnsplit_onnx.running.generating.generator import Generator
from dnnsplit_onnx.running.generating.sampling import Sampling
from dnnsplit_onnx.work.cuts import parted_states
from tests.converters.support import needs

pytestmark = [needs("pytorch", "zoo", "cpu"), pytest.mark.filterwarnings("ignore")]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SMALL, "vocab_size": 99, "max_position_embeddings": 64, "initializer_range": 0.3}
GPT2 = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 99,
    "n_positions": 64,
    "initializer_range": 0.3,
}
T5 = {
    "decoder_start_token_id": 0,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 99,
}
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 99,
    "max_position_embeddings": 64, "init_std": 0.3,
}  # fmt: skip
SOURCE = 60
WHISPER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 99,
    "num_mel_bins": 8, "max_source_positions": SOURCE, "max_target_positions": 64, "init_std": 0.3,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
VIT = {**SMALL, "image_size": 32, "patch_size": 8, "initializer_range": 0.3}


def save(folder, name, kind, **options):
    """A model of `transformers` with seeded weights, saved."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, name + kind)(getattr(transformers, f"{name}Config")(**options)).eval()
    model.save_pretrained(folder)
    return model


def here(folder, output, **options):
    return convert_here(parse_source(folder), output, Route("pytorch", "asked for"), Options(**options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "options", "inputs", "output"),
    [
        (
            "Bert",
            "ForSequenceClassification",
            TEXT,
            ["input_ids", "attention_mask", "token_type_ids"],
            "logits",
        ),
        ("Llama", "ForCausalLM", TEXT, ["input_ids", "attention_mask"], "logits"),
        (
            "T5",
            "ForConditionalGeneration",
            T5,
            ["input_ids", "attention_mask", "decoder_input_ids"],
            "logits",
        ),
        ("ViT", "ForImageClassification", VIT, ["pixel_values"], "logits"),
    ],
)
def test_models_of_each_kind(tmp_path, name, kind, options, inputs, output):
    save(tmp_path / "m", name, kind, **options)
    report = here(tmp_path / "m", tmp_path / "m.onnx")
    assert [port.name for port in report.inputs] == inputs
    assert report.outputs[0].name == output
    assert report.inputs[0].shape[0] == "batch"
    assert name == "ViT" or report.inputs[0].shape[1] == "sequence"
    assert report.max_rel_diff < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "options"), [("GPT2", "LMHeadModel", GPT2), ("Llama", "ForCausalLM", TEXT)]
)
def test_tokens_are_those_that_transformers_generates(tmp_path, name, kind, options):
    import torch

    model = save(tmp_path / "m", name, kind, **options)
    here(tmp_path / "m", tmp_path / "m.onnx", with_past=True)
    prompt = [[5, 17, 42, 8]]
    expected = model.generate(
        torch.tensor(prompt), attention_mask=torch.ones(1, 4, dtype=torch.int64), max_new_tokens=12,
        do_sample=False, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert generate(tmp_path / "m.onnx", prompt[0], 12, model.config) == expected[0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("T5", {**T5, "initializer_factor": 3.0}), ("Bart", BART)], ids=["t5", "bart"]
)
def test_an_encoder_and_steps_after_it_generate_what_transformers_does(tmp_path, name, options):
    import torch

    model = save(tmp_path / "m", name, "ForConditionalGeneration", **options)
    encoder = here(tmp_path / "m", tmp_path / "encoder.onnx", task="encoder")
    assert [port.shape for port in encoder.inputs] == [("batch", "sequence")] * 2
    step = here(tmp_path / "m", tmp_path / "step.onnx", with_past=True)
    assert [port.name for port in step.inputs][:3] == [
        "decoder_input_ids", "encoder_hidden_states", "encoder_attention_mask",
    ]  # fmt: skip
    text, mask = np.array([[5, 17, 42, 8, 77]]), np.array([[1, 1, 1, 1, 0]])
    expected = model.generate(
        torch.from_numpy(text), attention_mask=torch.from_numpy(mask), max_new_tokens=10, do_sample=False,
        num_beams=1, eos_token_id=None, forced_eos_token_id=None, forced_bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    (hidden,) = OnnxRun(tmp_path / "encoder.onnx")({"input_ids": text, "attention_mask": mask}).values()
    constant = {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}
    start = model.generation_config.decoder_start_token_id or 0
    width = model.config.d_model // 4
    tokens = decoded(
        OnnxRun(tmp_path / "step.onnx"), [start], 10, (2, 4, width), "decoder_input_ids", constant
    )
    assert tokens == expected[0].tolist()
    # And so do the two together, whole and cut between the layers.
    text = text[:, :4]
    expected = model.generate(
        torch.from_numpy(text), max_new_tokens=10, do_sample=False, num_beams=1, eos_token_id=None,
        forced_eos_token_id=None, forced_bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    sampling = Sampling(max_new=10, start=(start,), stop_tokens=frozenset())
    slices = slice_between_layers(tmp_path / "step.onnx", tmp_path / "slices")
    for place in (tmp_path / "step.onnx", slices):
        with Generator.open(place, encoder=tmp_path / "encoder.onnx") as generator:
            assert [start, *generator(text[0].tolist(), sampling).tokens] == expected[0].tolist()


def cut_between_layers(model):
    """A decoder of two layers, and the cheapest cut between them."""
    sizes = {"batch": 1, "sequence": 1, "past_sequence": 16, "encoder_sequence": SOURCE}
    analysis = analyse(model, sizes)
    graph, nbytes = analysis.graph, analysis.cut_nbytes()
    low = graph.producer["present.0.value"] + 1
    high = graph.state_readers["past_key_values.1.key"][0]
    between = [at for at in range(low, high + 1) if not parted_states(graph)[at]]
    return analysis, min(between, key=lambda at: nbytes[at])


def slice_between_layers(model, output):
    analysis, cut = cut_between_layers(model)
    machines = Topology(tiers=[Tier("a", gflops=1), Tier("b", gflops=2)], links=[Link(bandwidth_mbps=10)])
    slice_model(analysis.graph, plan(analysis, machines, cuts=[cut], pareto=False), output)
    return output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "staying"),
    [
        ("T5", T5, ["encoder_hidden_states=", "encoder_attention_mask="]),
        ("Bart", BART, ["encoder_hidden_states=", "encoder_attention_mask="]),
        ("Whisper", WHISPER, ["encoder_hidden_states="]),
    ],
    ids=["t5", "bart", "whisper"],
)
def test_what_an_encoder_gave_crosses_no_cut_of_its_decoder(tmp_path, name, options, staying):
    save(tmp_path / "m", name, "ForConditionalGeneration", **options)
    here(tmp_path / "m", tmp_path / "m.onnx", with_past=True)
    analysis, cut = cut_between_layers(tmp_path / "m.onnx")
    graph, nbytes = analysis.graph, analysis.cut_nbytes()
    renewed = [
        f"past_key_values.{at}.{part}=present.{at}.{part}" for at in (0, 1) for part in ("key", "value")
    ]
    assert [state.pair for state in graph.states] == [*staying, *renewed]
    # The token's values, its row of each mask, and lengths; one layer's keys are 32 numbers a word.
    assert 0 < nbytes[cut] <= 4 * 32 + 4 * 4 * (SOURCE + 17) + 200
    slice_between_layers(tmp_path / "m.onnx", tmp_path / "s")
    assert verify(tmp_path / "s", tmp_path / "m.onnx").bitwise


@pytest.mark.slow
def test_whisper_hears_in_one_file_and_speaks_in_another(tmp_path):
    import torch

    model = save(tmp_path / "m", "Whisper", "ForConditionalGeneration", **WHISPER)
    here(tmp_path / "m", tmp_path / "encoder.onnx", task="encoder")
    here(tmp_path / "m", tmp_path / "step.onnx", with_past=True)
    heard = np.random.default_rng(0).standard_normal((1, 8, 2 * SOURCE), dtype=np.float32)
    (hidden,) = OnnxRun(tmp_path / "encoder.onnx")({"input_features": heard}).values()
    constant = {"encoder_hidden_states": hidden}
    tokens = decoded(OnnxRun(tmp_path / "step.onnx"), [1], 6, (2, 4, 8), "decoder_input_ids", constant)
    whole = [1]
    for _ in range(6):
        with torch.no_grad():
            logits = model(torch.from_numpy(heard), decoder_input_ids=torch.tensor([whole])).logits
        whole.append(int(logits[0, -1].argmax()))
    assert tokens == whole
    sampling = Sampling(max_new=6, start=(1,), stop_tokens=frozenset())
    with Generator.open(tmp_path / "step.onnx", encoder=tmp_path / "encoder.onnx") as generator:
        assert [1, *generator({"input_features": heard}, sampling).tokens] == whole


@pytest.mark.slow
def test_a_decoder_with_its_caches_can_be_cut_between_layers(tmp_path):
    save(tmp_path / "m", "GPT2", "LMHeadModel", **GPT2)
    here(tmp_path / "m", tmp_path / "m.onnx", with_past=True)
    graph = load_graph(tmp_path / "m.onnx")
    readers = {
        name: [at for at, node in enumerate(graph.nodes) if name in node.inputs] for name in graph.inputs
    }
    written = [at for at, node in enumerate(graph.nodes) if "present.0.key" in node.outputs]
    assert min(readers["past_key_values.1.key"]) > written[0]


def generate(path, tokens, count, config):
    """Greedy decoding, the caches handed from step to step."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    shape = (config.num_hidden_layers, heads, config.hidden_size // config.num_attention_heads)
    return decoded(OnnxRun(path), tokens, count, shape, "input_ids", {})


def decoded(run, tokens, count, shape, name, constant):
    layers, heads, width = shape
    empty = np.zeros((1, heads, 0, width), np.float32)
    past = {f"past_key_values.{at}.{part}": empty for at in range(layers) for part in ("key", "value")}
    tokens, new = list(tokens), list(tokens)
    for _ in range(count):
        mask = {} if constant else {"attention_mask": np.ones((1, len(tokens)), np.int64)}
        outputs = run({name: np.array([new]), **mask, **constant, **past})
        past = {
            name.replace("present", "past_key_values"): outputs[name] for name in outputs if name != "logits"
        }
        new = [int(outputs["logits"][0, -1].argmax())]
        tokens += new
    return tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [({"task": "chess"}, "no task `chess`"), ({}, "cannot load"), ({"task": "fill-mask"}, "cannot load")],
)
def test_folders_that_cannot_be_loaded(tmp_path, options, message):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(InputError, match=message):
        here(tmp_path, tmp_path / "m.onnx", **options)
