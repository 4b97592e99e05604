"""Asks a Vulkan loader (the subject) for its devices.

{"devices": [{"name", "type", "api", "driver", "shared_memory", "storage_16_bit"}]}: type and api are Vulkan's
numbers, driver the driver's own words, shared_memory is maxComputeSharedMemorySize in bytes, storage_16_bit
is storageBuffer16BitAccess (left out if the device cannot be asked). Layouts and numbers are those of
vulkan_core.h.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int, c_uint8, c_uint32, c_uint64, c_void_p
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120  pathlib would cost a third of the time

from _answer import NoAnswerError, answer, load  # type: ignore[import-not-found]

_INCOMPLETE = 5
_FEATURES_2, _PROPERTIES_2 = 1000059000, 1000059001
_16_BIT_STORAGE, _DRIVER_PROPERTIES = 1000083000, 1000196000
_ERRORS = {
    -1: "VK_ERROR_OUT_OF_HOST_MEMORY",
    -3: "VK_ERROR_INITIALIZATION_FAILED",
    -9: "VK_ERROR_INCOMPATIBLE_DRIVER",
}


def _version(major: int, minor: int) -> int:
    return major << 22 | minor << 12


class _ApplicationInfo(Structure):
    _fields_ = (
        ("type", c_uint32),
        ("next", c_void_p),
        ("application", c_char_p),
        ("application_version", c_uint32),
        ("engine", c_char_p),
        ("engine_version", c_uint32),
        ("api", c_uint32),
    )


class _InstanceCreateInfo(Structure):
    _fields_ = (
        ("type", c_uint32),
        ("next", c_void_p),
        ("flags", c_uint32),
        ("application", POINTER(_ApplicationInfo)),
        ("layer_count", c_uint32),
        ("layers", c_void_p),
        ("extension_count", c_uint32),
        ("extensions", c_void_p),
    )


class _Limits(Structure):
    # VkPhysicalDeviceLimits with pointers of 64 bits: 504 bytes, aligned to 8 by its last, empty field here.
    _fields_ = (
        ("before", c_uint8 * 216),
        ("shared_memory", c_uint32),
        ("after", c_uint8 * 284),
        ("aligned", c_uint64 * 0),
    )


class _Properties(Structure):
    _fields_ = (
        ("api", c_uint32),
        ("driver_version", c_uint32),
        ("vendor", c_uint32),
        ("device", c_uint32),
        ("kind", c_uint32),
        ("name", c_char * 256),
        ("cache_uuid", c_uint8 * 16),
        ("limits", _Limits),
        ("sparse", c_uint32 * 5),
    )


class _DriverProperties(Structure):
    _fields_ = (
        ("type", c_uint32),
        ("next", c_void_p),
        ("id", c_uint32),
        ("name", c_char * 256),
        ("info", c_char * 256),
        ("conformance", c_uint8 * 4),
    )


class _Properties2(Structure):
    _fields_ = (("type", c_uint32), ("next", c_void_p), ("properties", _Properties))


class _Storage16(Structure):
    _fields_ = (
        ("type", c_uint32),
        ("next", c_void_p),
        ("storage_buffer", c_uint32),
        ("uniform_and_storage_buffer", c_uint32),
        ("push_constant", c_uint32),
        ("input_output", c_uint32),
    )


class _Features2(Structure):
    # VkPhysicalDeviceFeatures: 55 truth values.
    _fields_ = (("type", c_uint32), ("next", c_void_p), ("features", c_uint32 * 55))


def _check(call: str, code: int) -> None:
    if code not in {0, _INCOMPLETE}:
        raise NoAnswerError(f"{call}: {code} ({_ERRORS[code]})" if code in _ERRORS else f"{call}: {code}")


def _offered(library: ctypes.CDLL) -> int:
    """The loader's version; one of Vulkan 1.0 cannot say, and refuses to be asked for more."""
    version = c_uint32(_version(1, 0))
    if hasattr(library, "vkEnumerateInstanceVersion"):
        library.vkEnumerateInstanceVersion(byref(version))
    return version.value


def _instance(library: ctypes.CDLL, api: int) -> c_void_p:
    application = _ApplicationInfo(type=0, application=b"floatllm-build", api=api)
    create = _InstanceCreateInfo(type=1, application=ctypes.pointer(application))
    instance = c_void_p()
    _check("vkCreateInstance", library.vkCreateInstance(byref(create), None, byref(instance)))
    return instance


def _fill(library: ctypes.CDLL, instance: c_void_p, call: bytes, device: c_void_p, asked: Structure) -> bool:
    """Has `call` fill the structure and what is chained to it; false if the loader has no such call."""
    library.vkGetInstanceProcAddr.restype = c_void_p
    library.vkGetInstanceProcAddr.argtypes = (c_void_p, c_char_p)
    address = library.vkGetInstanceProcAddr(instance, call)
    if not address:
        return False
    ctypes.CFUNCTYPE(None, c_void_p, c_void_p)(address)(device, ctypes.addressof(asked))
    return True


def _driver(library: ctypes.CDLL, instance: c_void_p, device: c_void_p) -> str:
    driver = _DriverProperties(type=_DRIVER_PROPERTIES)
    properties = _Properties2(type=_PROPERTIES_2, next=ctypes.addressof(driver))
    _fill(library, instance, b"vkGetPhysicalDeviceProperties2", device, properties)
    return b" ".join((driver.name, driver.info)).strip().decode(errors="replace")


def _storage_16_bit(library: ctypes.CDLL, instance: c_void_p, device: c_void_p) -> dict[str, bool]:
    storage = _Storage16(type=_16_BIT_STORAGE)
    features = _Features2(type=_FEATURES_2, next=ctypes.addressof(storage))
    told = _fill(library, instance, b"vkGetPhysicalDeviceFeatures2", device, features)
    return {"storage_16_bit": bool(storage.storage_buffer)} if told else {}


def ask(subject: str, found: dict[str, Any]) -> None:
    library = load(subject)
    offered = _offered(library)
    instance = _instance(library, offered)
    enumerate_devices = library.vkEnumeratePhysicalDevices
    enumerate_devices.argtypes = (c_void_p, POINTER(c_uint32), c_void_p)
    enumerate_devices.restype = c_int
    count = c_uint32()
    _check("vkEnumeratePhysicalDevices", enumerate_devices(instance, byref(count), None))
    count.value = min(count.value, 64)
    devices = (c_void_p * count.value)()
    _check("vkEnumeratePhysicalDevices", enumerate_devices(instance, byref(count), devices))
    answers = found["devices"] = []
    for handle in devices[: count.value]:
        device = c_void_p(handle)
        properties = _Properties()
        library.vkGetPhysicalDeviceProperties(device, byref(properties))
        # Both sides must know a question: 16-bit storage came with 1.1, and the driver's name with 1.2.
        chains = min(offered, properties.api) >= _version(1, 1)
        named = chains and properties.api >= _version(1, 2)
        answers.append(
            {
                "name": properties.name.decode(errors="replace"),
                "type": properties.kind,
                "api": properties.api,
                "driver": _driver(library, instance, device) if named else "",
                "shared_memory": properties.limits.shared_memory,
                **(_storage_16_bit(library, instance, device) if chains else {}),
            }
        )


if __name__ == "__main__":
    answer(ask)
