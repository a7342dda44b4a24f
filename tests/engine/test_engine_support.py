from __future__ import annotations

import pytest
import torch

from txlplan.engine.support import unsupported


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"plan": {"tensor_parallel": 2}}, "tensor_parallel = 2"),
        ({"plan": {"pipeline_parallel": 4}}, "pipeline_parallel = 4"),
        ({"plan": {"context_parallel": 2}}, "context_parallel = 2"),
        ({"plan": {"zero_stage": 3}}, "zero_stage = 3"),
        ({"plan": {"compile": True}}, "compile = true"),
        ({"plan": {"precision": "tf32"}}, "tf32"),
        ({"plan": {"attention": "compiled", "precision": "fp16"}}, "not to train in fp16 on cpu"),
        (
            {"workload": {"task": "generate"}, "plan": {"attention": "compiled"}, "run": {"checkpoint": "x"}},
            "not to generate in fp32 on cpu",
        ),
        ({"run": {"device": "tpu"}}, "run.device = 'tpu'"),
        ({"workload": {"global_batch": 64}}, "global_batch = 64"),
        ({"workload": {"task": "score"}}, "run.checkpoint is missing"),
        ({"workload": {"task": "score"}, "plan": {"accumulation": 2}, "run": {"checkpoint": "x"}}, "accumulation = 2"),
        ({"workload": {"task": "generate"}, "plan": {"data_parallel": 2}, "run": {"checkpoint": "x"}}, "data_parallel = 2"),
    ],
)
def test_what_is_not_executed_is_named_and_refused(plan_of, work, changes, named, capsys):
    plan_file = plan_of(**changes)
    (problem,) = unsupported(plan_file)
    assert named in problem
    ran = work(plan_file)
    assert ran.exit_code == 2
    assert ran.events == []
    assert named in capsys.readouterr().err


def test_attention_in_cpp_without_a_compiler_is_refused_before_anything_starts(plan_of, monkeypatch):
    plan_file = plan_of(plan={"attention": "compiled"})
    monkeypatch.setenv("CXX", "/no/such/compiler")
    (problem,) = unsupported(plan_file)
    assert "no C++ compiler" in problem


def test_attention_in_cpp_in_bf16_is_refused_on_a_cpu_without_products_of_it(plan_of, monkeypatch):
    plan_file = plan_of(plan={"attention": "compiled", "precision": "bf16"})
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    (problem,) = unsupported(plan_file)
    assert "in bf16 there is code for CPUs with AVX-512's products of bf16" in problem


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"plan": {"activation_checkpointing": "full"}}, "activation_checkpointing = 'full'"),
        ({"plan": {"data_parallel": 2}}, "not of 2"),
        ({"workload": {"task": "score"}, "run": {"checkpoint": "x"}}, "does not compile the step to score"),
    ],
)
def test_graphs_are_for_the_layers_of_one_gpu_that_trains(plan_of, changes, named):
    gpu = {"device": "cuda"}
    plan = changes.get("plan", {}) | {"compile": True}
    (problem,) = unsupported(plan_of(**(changes | {"plan": plan, "run": gpu | changes.get("run", {})})))
    assert "plan.compile = true" in problem
    assert named in problem
    assert unsupported(plan_of(plan={"compile": True, "accumulation": 2}, run=gpu)) == []


def test_what_is_executed_has_no_complaints(plan_of):
    assert unsupported(plan_of(plan={"accumulation": 2, "precision": "bf16", "data_parallel": 2})) == []
    assert unsupported(plan_of(plan={"precision": "tf32"}, run={"device": "cuda"})) == []
