"""The fields of NVIDIA's DCGM: the OpenTelemetry name, base unit and meaning of each, and its blanks.

Names are those of OpenTelemetry's hardware conventions where these have one. Where they have none, ours are in their
manner (hw.gpu.speed, hw.gpu.memory.free and .reserved, hw.gpu.memory.controller.utilization, hw.gpu.power.limit,
hw.gpu.xid), and a field that is not in the table is called dcgm.<its name>. docs/gpu.md shows the table.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

PREFIX: Final = "DCGM_FI_"
_MIB: Final = 1024.0 * 1024.0
_MHZ: Final = 1_000_000.0
_NO_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({})

Kind = Literal["gauge", "counter", "code"]


class Field(NamedTuple):
    """What a field becomes: value = reading * multiplier / divisor, so that 7 % is 0.07 to the last digit."""

    metric: str
    unit: str  # UCUM; "" where it is not known
    description: str
    kind: Kind = "gauge"  # a code names something; its sum or mean means nothing
    multiplier: float = 1.0
    divisor: float = 1.0
    attributes: Mapping[str, str] = _NO_ATTRIBUTES  # what tells it from others of the same metric
    narrow: bool = True  # whether a blank of 32 bits can't be a reading


def _errors(kind: str, description: str) -> Field:
    return Field("hw.errors", "{error}", description, "counter", attributes={"error.type": kind}, narrow=False)


def _busy(task: str, description: str) -> Field:
    return Field("hw.gpu.utilization", "1", description, divisor=100.0, attributes={"hw.gpu.task": task})


def _speed(clock: str) -> Field:
    description = f"Frequency of the {clock} clock."
    return Field("hw.gpu.speed", "Hz", description, multiplier=_MHZ, attributes={"hw.gpu.clock": clock})


def _heat(place: str) -> Field:
    description = f"Temperature of the {'GPU' if place == 'gpu' else 'memory'}."
    return Field("hw.temperature", "Cel", description, attributes={"hw.sensor_location": place})


def _memory(what: str, description: str) -> Field:
    return Field(f"hw.gpu.memory.{what}", "By", description, multiplier=_MIB)


def _watts(metric: str, description: str) -> Field:
    return Field(metric, "W", description)


def _ratio(name: str, description: str) -> Field:
    return Field(f"dcgm.prof.{name}", "1", description)


def _traffic(name: str, description: str) -> Field:
    return Field(f"dcgm.prof.{name}", "By/s", description, narrow=False)


FIELDS: Final[Mapping[str, Field]] = {
    PREFIX + name: field
    for name, field in {
        "DEV_GPU_UTIL": _busy("general", "Share of time in which a kernel ran."),
        "DEV_ENC_UTIL": _busy("encoder", "Share of time in which the video encoder was busy."),
        "DEV_DEC_UTIL": _busy("decoder", "Share of time in which the video decoder was busy."),
        "DEV_MEM_COPY_UTIL": Field(
            "hw.gpu.memory.controller.utilization",
            "1",
            "Share of time in which memory was read or written.",
            divisor=100.0,
        ),
        "DEV_FB_USED": _memory("usage", "Memory in use."),
        "DEV_FB_FREE": _memory("free", "Memory that is free."),
        "DEV_FB_RESERVED": _memory("reserved", "Memory that the driver keeps for itself."),
        "DEV_FB_TOTAL": _memory("limit", "Memory that the GPU has."),
        "DEV_FB_USED_PERCENT": Field("hw.gpu.memory.utilization", "1", "Share of the memory that is in use."),
        "DEV_GPU_TEMP": _heat("gpu"),
        "DEV_MEMORY_TEMP": _heat("memory"),
        "DEV_POWER_USAGE": _watts("hw.power", "Power that the GPU draws."),
        "DEV_POWER_USAGE_INSTANT": _watts("hw.power", "Power that the GPU draws at this moment."),
        "DEV_POWER_MGMT_LIMIT": _watts("hw.gpu.power.limit", "Power limit that was asked for."),
        "DEV_ENFORCED_POWER_LIMIT": _watts("hw.gpu.power.limit", "Power limit that the driver enforces."),
        "DEV_TOTAL_ENERGY_CONSUMPTION": Field(
            "hw.energy", "J", "Energy used since the driver was loaded.", "counter", divisor=1000.0, narrow=False
        ),
        "DEV_SM_CLOCK": _speed("sm"),
        "DEV_MEM_CLOCK": _speed("memory"),
        "DEV_VIDEO_CLOCK": _speed("video"),
        "DEV_FAN_SPEED": Field("hw.fan.speed_ratio", "1", "Share of the fan's highest speed.", divisor=100.0),
        "DEV_XID_ERRORS": Field("hw.gpu.xid", "1", "Code of the last XID error; 0: none yet.", "code"),
        "DEV_ECC_SBE_VOL_TOTAL": _errors("corrected", "Single-bit ECC errors since the driver was loaded."),
        "DEV_ECC_DBE_VOL_TOTAL": _errors("uncorrected", "Double-bit ECC errors since the driver was loaded."),
        "DEV_ECC_SBE_AGG_TOTAL": _errors("corrected", "Single-bit ECC errors in the GPU's life."),
        "DEV_ECC_DBE_AGG_TOTAL": _errors("uncorrected", "Double-bit ECC errors in the GPU's life."),
        "DEV_CORRECTABLE_REMAPPED_ROWS": _errors("corrected_remapped_row", "Rows remapped for corrected errors."),
        "DEV_UNCORRECTABLE_REMAPPED_ROWS": _errors("uncorrected_remapped_row", "Rows remapped for uncorrected errors."),
        "DEV_RETIRED_SBE": _errors("corrected_retired_page", "Pages retired for single-bit errors."),
        "DEV_RETIRED_DBE": _errors("uncorrected_retired_page", "Pages retired for double-bit errors."),
        "DEV_PCIE_REPLAY_COUNTER": _errors("pcie_replay", "Retries on the PCIe bus."),
        "DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": _errors("nvlink_crc_flit", "Flow-control CRC errors of NVLink."),
        "DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL": _errors("nvlink_crc_data", "Data CRC errors of NVLink."),
        "DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL": _errors("nvlink_replay", "Retries on NVLink."),
        "DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL": _errors("nvlink_recovery", "Recoveries of NVLink."),
        "PROF_GR_ENGINE_ACTIVE": _ratio("gr_engine_active", "Share of time in which the graphics engine was active."),
        "PROF_SM_ACTIVE": _ratio("sm_active", "Share of cycles in which an SM had a warp assigned."),
        "PROF_SM_OCCUPANCY": _ratio("sm_occupancy", "Share of the warps that an SM can hold."),
        "PROF_DRAM_ACTIVE": _ratio("dram_active", "Share of cycles in which the memory interface was active."),
        "PROF_PIPE_TENSOR_ACTIVE": _ratio("pipe_tensor_active", "Share of cycles in which the tensor pipe was active."),
        "PROF_PIPE_FP64_ACTIVE": _ratio("pipe_fp64_active", "Share of cycles in which the FP64 pipe was active."),
        "PROF_PIPE_FP32_ACTIVE": _ratio("pipe_fp32_active", "Share of cycles in which the FP32 pipe was active."),
        "PROF_PIPE_FP16_ACTIVE": _ratio("pipe_fp16_active", "Share of cycles in which the FP16 pipe was active."),
        "PROF_PCIE_TX_BYTES": _traffic("pcie_tx_bytes", "Sent over PCIe."),
        "PROF_PCIE_RX_BYTES": _traffic("pcie_rx_bytes", "Received over PCIe."),
        "PROF_NVLINK_TX_BYTES": _traffic("nvlink_tx_bytes", "Sent over NVLink."),
        "PROF_NVLINK_RX_BYTES": _traffic("nvlink_rx_bytes", "Received over NVLink."),
    }.items()
}


@lru_cache(maxsize=1024)
def field_of(name: str) -> Field:
    """What a field of DCGM becomes; one that is not known keeps its name and its value, in a unit not known."""
    known = FIELDS.get(name)
    if known is not None:
        return known
    return Field(
        "dcgm." + name.removeprefix(PREFIX).lower().replace("_", ".", 1), "", "A field that Sluice has no unit of."
    )


def names_of(metric: str) -> list[str]:
    """The fields that become this metric, by OpenTelemetry's name or a field's own."""
    named = [name for name, field in FIELDS.items() if metric in (name, field.metric)]
    if named:
        return named
    return [
        PREFIX + metric.removeprefix("dcgm.").replace(".", "_", 1).upper() if metric.startswith("dcgm.") else metric
    ]


def is_blank_reading(reading: float, field: Field) -> bool:
    """Whether DCGM says with this number that it has none.

    Its blanks are 16 numbers each of 32 bits, of 64, and of a double. One of 32 bits may well be the reading of a
    counter, so there it counts as one.
    """
    return (
        not math.isfinite(reading)
        or reading >= 2.0**63 - 1024
        or 2.0**47 <= reading < 2.0**47 + 16
        or (field.narrow and 0x7FFFFFF0 <= reading <= 0x7FFFFFFF)
    )
