"""Vulkan devices x ggml: which of them ggml refuses or computes wrongly on, and how it counts the others."""

from __future__ import annotations

from dataclasses import replace

from floatllm_build.sizes import KIB
from floatllm_build.tables.vulkan import KNOWN, SOFTWARE
from floatllm_build.values import VulkanDevice
from floatllm_build.versions import version_tuple

# VkPhysicalDeviceVulkan11Features, in which ggml looks for 16-bit storage, came with it (read).
_OLDEST_API = (1, 2)
# Without 16-bit arithmetic the kernels for matrices take 16.3 KiB in their smallest form, and more in others
# (ggml_vk_matmul_shmem_support, read): with the 16 KiB that Vulkan guarantees ggml ends or computes nonsense.
_LEAST_SHARED_MEMORY = 32 * KIB


def is_software(device: VulkanDevice) -> bool:
    return device.type == "cpu" or bool(SOFTWARE.search(f"{device.name} {device.driver}"))


def refusal(device: VulkanDevice) -> str:
    """Why ggml does not compute on the device; empty if it does, or nobody knows better."""
    known = _filled(device)
    api = version_tuple(device.api)
    if () < api < _OLDEST_API:
        return f"it offers Vulkan {device.api}, and ggml needs 1.2 or newer"
    if known.storage_16_bit is False:
        return "it has no 16-bit storage (storageBuffer16BitAccess), and ggml refuses such devices"
    if 0 < known.shared_memory < _LEAST_SHARED_MEMORY:
        return (
            f"it has {known.shared_memory // KIB} KiB of shared memory, and ggml's kernels for matrices need "
            f"{_LEAST_SHARED_MEMORY // KIB}"
        )
    return ""


def _filled(device: VulkanDevice) -> VulkanDevice:
    words = f"{device.name} {device.driver}"
    known = next((one for one in KNOWN if one.words.search(words)), None)
    if known is None:
        return device
    told = device.storage_16_bit
    return replace(
        device,
        storage_16_bit=known.storage_16_bit if told is None else told,
        shared_memory=device.shared_memory or known.shared_memory,
    )


def place(devices: tuple[VulkanDevice, ...], wanted: VulkanDevice) -> tuple[int, tuple[str, ...]]:
    """Ggml's number of the device, and what must be set so that ggml has it.

    It lists discrete and integrated GPUs with 16-bit storage in the loader's order, else the first device
    that is no CPU; or those whose numbers it is told (ggml_vk_instance_init, read).
    """
    gpus = [one for one in devices if one.type in {"discrete", "integrated"}]
    listed = [one for one in gpus if _filled(one).storage_16_bit is not False]
    listed = listed or [one for one in devices if one.type != "cpu"][:1]
    if wanted in listed:
        return listed.index(wanted), ()
    return 0, (f"GGML_VK_VISIBLE_DEVICES={devices.index(wanted)}",)
