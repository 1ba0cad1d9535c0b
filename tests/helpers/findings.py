"""What rap-doctor finds on a machine."""

from rap_edge.runtime.doctor.machine import Facts
from rap_edge.runtime.engines.preflight import Machine, platform_name
from rap_edge.runtime.machine.cuda_driver import CudaDriver

CPU = Facts(
    machine=Machine(platform_name(), CudaDriver(None, (), "no CUDA driver is installed"), {}),
    management=None,
    nvidia_hardware=False,
    providers=("CPUExecutionProvider",),
    features=("AVX2",),
)
