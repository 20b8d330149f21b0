"""The process group of the ranks that agreed."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore

from devmap.errors import UsageError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

    from devmap.distributed.agreement import Launch

__all__ = ["interface_to", "start_group"]

_GET_ADDRESS = 0x8915
"""Linux's request for the address of an interface, `SIOCGIFADDR`."""


def start_group(
    store: Store, launch: Launch, device: torch.device, *, timeout_seconds: float = 600.0
) -> dist.ProcessGroup:
    """Return the group of all ranks; the one that the program has made already, where it has.

    NCCL moves tensors between CUDA devices, gloo all others. gloo takes the interface by which rank 0 is
    reached, unless `GLOO_SOCKET_IFNAME` names one: left to itself it may pick the loopback of each machine.

    Raises:
        UsageError: the program's own group has other ranks than torchrun gave.
    """
    if dist.is_initialized():
        if (dist.get_rank(), dist.get_world_size()) != (launch.rank, launch.size):
            raise UsageError(
                f"the program's process group has this process as rank {dist.get_rank()} of "
                f"{dist.get_world_size()}, and torchrun as rank {launch.rank} of {launch.size}",
                help="leave the group to devmap, or make it over all of torchrun's processes",
            )
    else:
        if "GLOO_SOCKET_IFNAME" not in os.environ:
            found = interface_to(launch.address)
            if found is not None:
                os.environ["GLOO_SOCKET_IFNAME"] = found
        is_cuda = device.type == "cuda" and dist.is_nccl_available()
        if is_cuda:
            torch.cuda.set_device(device)
        dist.init_process_group(
            "nccl" if is_cuda else "gloo",
            store=PrefixStore("group", store),
            rank=launch.rank,
            world_size=launch.size,
            timeout=timedelta(seconds=timeout_seconds),
        )
    group = dist.group.WORLD
    assert group is not None
    return group


def interface_to(address: str) -> str | None:
    """Return the name of the network interface by which an address is reached; None where it cannot be told.

    No packet is sent: connecting a datagram socket only chooses the way.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            own = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode()[:15])
                try:
                    found = fcntl.ioctl(probe.fileno(), _GET_ADDRESS, request)
                except OSError:
                    continue  # an interface without an address
                if socket.inet_ntoa(found[20:24]) == own:
                    return name
    except OSError:
        return None
    return None
