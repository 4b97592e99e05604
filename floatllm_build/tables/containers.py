"""What tells a container, and how a GPU gets into it, by what runs it."""

from __future__ import annotations

from collections.abc import Mapping

# Who makes a container in the place of docker or podman -> a variable or a file that only he brings.
MAKERS = (
    ("toolbox", "", "/run/.toolboxenv"),
    ("distrobox", "DISTROBOX_ENTER_PATH", ""),
    ("apptainer", "APPTAINER_CONTAINER", "/.singularity.d"),
    ("apptainer", "SINGULARITY_CONTAINER", ""),
    ("flatpak", "", "/.flatpak-info"),
    ("kubernetes", "KUBERNETES_SERVICE_HOST", "/var/run/secrets/kubernetes.io"),
    ("podman", "", "/run/.containerenv"),
    ("docker", "", "/.dockerenv"),
)
# Of these a container is made for one program, and users of its own it has none.
FOR_ONE_PROGRAM = {"kubernetes", "podman", "docker"}

# As in the manuals of NVIDIA's container toolkit, AMD's ROCm containers, Kubernetes' device plugins, LXD and
# Apptainer (November 2026). What stands under "" is for containers of another kind.
NVIDIA: Mapping[str, str] = {
    "docker": "start the container with the GPU: docker run --gpus all (NVIDIA's container toolkit)",
    "podman": "start the container with the GPU: podman run --device nvidia.com/gpu=all, after "
    "`nvidia-ctk cdi generate` on the machine",
    "distrobox": "make the container with the GPU: distrobox create --nvidia",
    "kubernetes": "give the pod a GPU: nvidia.com/gpu: 1 in its resources.limits (NVIDIA's device plugin), "
    "and runtimeClassName: nvidia if that is not the cluster's default",
    "lxc": "give the container the GPU on the machine that runs it: lxc config device add NAME gpu gpu && "
    "lxc config set NAME nvidia.runtime true (Proxmox: pass /dev/nvidia0, /dev/nvidiactl and "
    "/dev/nvidia-uvm through, and install the same driver without its module)",
    "apptainer": "start the container with the GPU: apptainer exec --nv",
    "proot": "use a machine with an NVIDIA GPU: a phone has none",
    "flatpak": "install outside of Flatpak, whose programs reach no CUDA",
    "": "start the container with the GPU: docker run --gpus all, podman run --device nvidia.com/gpu=all, "
    "or the option of whatever runs this container",
}
AMD: Mapping[str, str] = {
    "docker": "start the container with --device /dev/kfd --device /dev/dri",
    "podman": "start the container with --device /dev/kfd --device /dev/dri --group-add keep-groups",
    "kubernetes": "give the pod a GPU: in its resources.limits amd.com/gpu: 1 (AMD's device plugin)",
    "lxc": "give the container the GPU on the machine that runs it: lxc config device add NAME gpu gpu, and "
    "/dev/kfd: lxc config device add NAME kfd unix-char path=/dev/kfd",
    "apptainer": "start the container with the GPU: apptainer exec --rocm",
    "proot": "use a machine with an AMD GPU: a phone has none",
    "flatpak": "install outside of Flatpak, whose programs reach no ROCm",
    "": "start the container with --device /dev/kfd --device /dev/dri",
}
OTHER: Mapping[str, str] = {
    "kubernetes": "give the pod a GPU: that of the maker's device plugin in its resources.limits "
    "(amd.com/gpu, gpu.intel.com/i915)",
    "lxc": "give the container the GPU on the machine that runs it: lxc config device add NAME gpu gpu",
    "apptainer": "start the container with --bind /dev/dri",
    "proot": "install Mesa's driver for the phone's GPU (turnip on Adreno), or use Termux itself",
    "flatpak": "install outside of Flatpak",
    "": "start the container with --device /dev/dri",
}
ALSO_CALLED = {
    "toolbox": "podman",
    **dict.fromkeys(("containerd", "crio"), "kubernetes"),
    **dict.fromkeys(("lxd", "incus", "lxc-libvirt"), "lxc"),
    "singularity": "apptainer",
}
# Of these the texts above say so.
OUT_OF_REACH = {"proot", "flatpak"}
