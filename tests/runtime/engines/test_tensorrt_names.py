"""Everything that is asked of TensorRT's three modules, held to the real ones, which need no GPU for that."""

import json

import pytest
from helpers.gpu.real_tensorrt import RealTensorRt

RUNS = {
    "ICudaEngine": (
        "create_execution_context",
        "device_memory_size_v2",
        "get_tensor_dtype",
        "get_tensor_mode",
        "get_tensor_name",
        "get_tensor_shape",
        "num_aux_streams",
        "num_io_tensors",
    ),
    "IExecutionContext": (
        "execute_async_v3",
        "set_aux_streams",
        "set_device_memory",
        "set_input_shape",
        "set_tensor_address",
    ),
    "Runtime": ("deserialize_cuda_engine", "engine_host_code_allowed"),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "ILogger": (),
}
COMPILES_LATE = {
    "ICudaEngine": ("create_runtime_config",),
    "IExecutionContext": ("is_stream_capturable",),
    "IRuntimeConfig": (
        "create_runtime_cache",
        "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy",
        "set_runtime_cache",
    ),
    "IRuntimeCache": ("deserialize", "serialize"),
    "Runtime": ("get_engine_validity",),
    "EngineValidity": ("INVALID",),
    "EngineInvalidityDiagnostics": ("UNSUPPORTED_CC",),
    "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
}
BUILDS = {
    "Builder": (
        "build_serialized_network",
        "create_builder_config",
        "create_network",
        "create_optimization_profile",
    ),
    "INetworkDefinition": ("get_input", "get_layer", "num_inputs", "num_layers"),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "OnnxParser": ("get_error", "num_errors", "parse", "parse_from_file"),
    "ParserError": ("desc", "node_name", "node_operator"),
    "IBuilderConfig": (
        "add_optimization_profile",
        "clear_flag",
        "create_timing_cache",
        "get_timing_cache",
        "progress_monitor",
        "set_timing_cache",
    ),
    "BuilderFlag": ("TF32",),
    "ILayer": ("get_output", "metadata", "num_outputs", "type"),
    "LayerType": ("ATTENTION_INPUT", "ATTENTION_OUTPUT", "CAST", "CONSTANT", "SHUFFLE"),
    "IAttentionInputLayer": ("attention",),
    "IAttention": ("decomposable",),
    "IOptimizationProfile": ("set_shape",),
    "IProgressMonitor": (),
    "ICudaEngine": ("create_engine_inspector",),
    "EngineInspector": ("get_engine_information",),
    "LayerInformationFormat": ("JSON",),
}
FOR_ONE_GPU = {
    "HardwareCompatibilityLevel": ("AMPERE_PLUS", "NONE", "SAME_COMPUTE_CAPABILITY"),
    "BuilderFlag": ("EXCLUDE_LEAN_RUNTIME", "VERSION_COMPATIBLE"),
    "IBuilderConfig": ("hardware_compatibility_level", "profiling_verbosity"),
    "ProfilingVerbosity": ("DETAILED",),
    "ITimingCache": ("serialize",),
}
FOR_TARGETS = {
    "IBuilderConfig": ("num_compute_capabilities", "set_compute_capability"),
    "BuilderFlag": ("REQUIRE_USER_ALLOCATION",),
    "ComputeCapability": ("CURRENT", "SM75", "SM80", "SM86", "SM89", "SM120", "SM121"),
}


def missing(tensorrt: RealTensorRt, module: str, *asked: dict[str, tuple[str, ...]]) -> list[str]:
    """What the module does not have, as "Class" or "Class.name"."""
    script = f"""
import json, {module} as module
for group in json.loads({json.dumps(json.dumps(asked))}):
    for kind, names in group.items():
        if not hasattr(module, kind):
            print(kind)
        for name in names:
            if not hasattr(getattr(module, kind, None), name):
                print(kind + "." + name)
"""
    return tensorrt.run(script).split()


@pytest.mark.parametrize(
    ("module", "asked"),
    [
        ("tensorrt_rtx", (RUNS, COMPILES_LATE, BUILDS, FOR_TARGETS)),
        ("tensorrt", (RUNS, BUILDS, FOR_ONE_GPU)),
        ("tensorrt_lean", (RUNS,)),
    ],
)
def test_everything_asked_of_a_module_is_in_the_real_one(tensorrt: RealTensorRt, module: str, asked) -> None:
    assert missing(tensorrt, module, *asked) == []


def test_only_the_module_that_compiles_late_is_asked_about_that(tensorrt: RealTensorRt) -> None:
    # The runtime looks for these two before it uses the rest of `COMPILES_LATE`.
    telling = {"IRuntimeCache": (), "IExecutionContext": ("is_stream_capturable",)}
    for module in ("tensorrt", "tensorrt_lean"):
        assert missing(tensorrt, module, telling) == ["IRuntimeCache", "IExecutionContext.is_stream_capturable"]
