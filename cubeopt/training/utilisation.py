"""How busy the device has been: a GPU by its driver's samples, a CPU by this process's time."""

import logging
import time
from typing import Any

import pynvml
import torch

logger = logging.getLogger(__name__)


class Meter:
    """Looks at a device now and then; what it tells is of the time since its last look."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._gpu = _gpu(device) if device.type == "cuda" else None
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._seen = int(time.time() * 1e6)  # microseconds, as the driver stamps its samples

    def read(self) -> dict[str, float]:
        """device_utilisation in percent, or nothing where it cannot be had.

        Of a GPU: the share of the time in which it computed anything, for whomever. Of a CPU: this
        process's time on all cores over the wall time, so one core that is always busy is 100.
        """
        if self._device.type == "cpu":
            return self._of_process()
        return self._of_gpu() if self._gpu is not None else {}

    def _of_process(self) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        passed, used = wall - self._wall, cpu - self._cpu
        self._wall, self._cpu = wall, cpu
        return {"device_utilisation": 100.0 * used / passed} if passed > 0.0 else {}

    def _of_gpu(self) -> dict[str, float]:
        try:
            _, samples = pynvml.nvmlDeviceGetSamples(
                self._gpu, pynvml.NVML_GPU_UTILIZATION_SAMPLES, self._seen
            )
        except pynvml.NVMLError as error:  # none since the last look, or not by this GPU
            logger.debug("no utilisation of %s: %s", self._device, error)
            return {}
        new = [each for each in samples if each.timeStamp > self._seen]
        if not new:
            return {}
        self._seen = max(each.timeStamp for each in new)
        return {"device_utilisation": sum(each.sampleValue.uiVal for each in new) / len(new)}


def _gpu(device: torch.device) -> Any:
    """What the driver calls *device*, found by what does not depend on CUDA_VISIBLE_DEVICES."""
    name = torch.cuda.get_device_properties(device).uuid
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{name}")
    except pynvml.NVMLError as error:
        logger.info("the utilisation of %s cannot be had: %s", device, error)
        return None
